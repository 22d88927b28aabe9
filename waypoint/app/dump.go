package app

import (
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// dump is the configuration in force and its state, for /config_dump.
type dump struct {
	Version  string               `json:"version"`
	Gateway  string               `json:"gateway"`
	Identity string               `json:"identity"`
	XDS      xdsclient.Status     `json:"xds"`
	Services []serviceDump        `json:"services"`
	Backends []upstream.Status    `json:"backends"`
	Tunnels  []hbone.PooledTunnel `json:"tunnels"`
}

type serviceDump struct {
	Service  string   `json:"service"`
	Policies []string `json:"policies,omitempty"`
}

func (w *waypoint) dump() any {
	d := dump{
		Version: telemetry.Version, Gateway: w.cfg.PodNamespace + "/" + w.cfg.Gateway, Identity: w.lease.ID().String(),
		XDS: w.xds.Status(), Services: []serviceDump{}, Backends: w.mesh.Backends(), Tunnels: w.dialer.Tunnels(),
	}
	for key, s := range w.mesh.Services() {
		d.Services = append(d.Services, serviceDump{Service: key.String(), Policies: s.Service.Policies})
	}
	return d
}
