package app

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// dump is what /config_dump shows; the keys are those of Istio's ztunnel.
func (z *ztunnel) dump() any {
	return map[string]any{
		"workloads":      []any{},
		"services":       []any{},
		"policies":       []any{},
		"stagedServices": []any{},
		"staticConfig":   struct{}{},
		"version":        map[string]string{"version": Version},
		"config":         z.cfg.Dump(),
		"certificates":   certs.Dumps(z.certs.Status()),
		"workloadState":  z.pods.dump(time.Now()),
		"xds":            z.xds.Status(),
	}
}

// podDump is one pod of workloadState, by its uid.
type podDump struct {
	State       string          `json:"state"`
	Info        podInfo         `json:"info"`
	Addresses   []netip.Addr    `json:"addresses,omitempty"`
	Connections conntrack.Views `json:"connections"`
}

type podInfo struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

func (p *pods) dump(now time.Time) map[string]podDump {
	out := map[string]podDump{}
	for _, x := range p.all() {
		i := x.pod.Info
		out[x.pod.UID] = podDump{
			State: "Up", Info: podInfo{i.Name, i.Namespace, i.ServiceAccount},
			Addresses: x.addresses(), Connections: x.table.Views(now),
		}
	}
	return out
}
