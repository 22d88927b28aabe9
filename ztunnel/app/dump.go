package app

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// dump is what /config_dump shows; the keys are those of Istio's ztunnel.
func (z *ztunnel) dump() any {
	mesh := z.store.Snapshot().Dump()
	status := z.certs.Status()
	return map[string]any{
		"workloads":      mesh.Workloads,
		"services":       mesh.Services,
		"policies":       mesh.Policies,
		"stagedServices": mesh.StagedServices,
		"staticConfig":   struct{}{},
		"version":        map[string]string{"version": telemetry.Version},
		"config":         z.cfg.Dump(),
		"certificates":   certs.Dumps(status),
		"workloadState":  z.workloads(time.Now()),
		// Ours: more than Istio's keys can tell.
		"node":              z.cfg.Node,
		"certificateStatus": status,
		"xds":               z.xds.Status(),
	}
}

// podDump is one pod of workloadState, by its uid.
type podDump struct {
	// State is Up, or Pending while the pod's proxies do not run.
	State       string           `json:"state"`
	Error       string           `json:"error,omitempty"`
	Info        podInfo          `json:"info"`
	Addresses   []netip.Addr     `json:"addresses,omitempty"`
	Connections *conntrack.Views `json:"connections,omitempty"`
}

type podInfo struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

// workloads shows the pods that the node agent enrolled, running or not.
func (z *ztunnel) workloads(now time.Time) map[string]podDump {
	out := z.pods.dump(now)
	if agent := z.agent.Load(); agent != nil {
		for _, w := range agent.Workloads() {
			if _, up := out[w.UID]; !up {
				out[w.UID] = podDump{State: "Pending", Error: w.Error,
					Info: podInfo{w.Info.Name, w.Info.Namespace, w.Info.ServiceAccount}}
			}
		}
	}
	return out
}

func (p *pods) dump(now time.Time) map[string]podDump {
	out := map[string]podDump{}
	for _, x := range p.all() {
		views := x.table.Views(now)
		out[x.pod.UID] = podDump{
			State: "Up", Info: podInfo{x.pod.Info.Name, x.pod.Info.Namespace, x.pod.Info.ServiceAccount},
			Addresses: x.addresses(), Connections: &views,
		}
	}
	return out
}
