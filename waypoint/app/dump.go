package app

import (
	"cmp"
	"encoding/json"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// dump is the configuration in force and its state, for /config_dump.
type dump struct {
	Version  string           `json:"version"`
	Gateway  string           `json:"gateway"`
	Identity string           `json:"identity"`
	XDS      xdsclient.Status `json:"xds"`
	Services []serviceDump    `json:"services"`
	// Telemetry is what the resource of that name says, absent for the defaults.
	Telemetry json.RawMessage      `json:"telemetry,omitempty"`
	Backends  []upstream.Status    `json:"backends"`
	Tunnels   []hbone.PooledTunnel `json:"tunnels"`
}

type serviceDump struct {
	Service         string                  `json:"service"`
	Policies        []string                `json:"policies,omitempty"`
	Authentications []string                `json:"authentications,omitempty"`
	RateLimits      []string                `json:"rateLimits,omitempty"`
	Ports           []route.PortDescription `json:"ports"`
}

func (w *waypoint) dump() any {
	d := dump{
		Version: telemetry.Version, Gateway: w.cfg.PodNamespace + "/" + w.cfg.Gateway, Identity: w.lease.ID().String(),
		XDS: w.xds.Status(), Services: []serviceDump{}, Backends: w.mesh.Backends(), Tunnels: w.dialer.Tunnels(),
	}
	for key, s := range w.mesh.Services() {
		d.Services = append(d.Services, serviceDump{
			Service: key.String(), Policies: s.Service.Policies, Authentications: s.Authentications, RateLimits: s.Service.RateLimits, Ports: s.Describe(),
		})
	}
	slices.SortFunc(d.Services, func(a, b serviceDump) int { return cmp.Compare(a.Service, b.Service) })
	slices.SortFunc(d.Backends, func(a, b upstream.Status) int { return cmp.Compare(a.Name, b.Name) })
	if t := w.report.Telemetry(); t != nil {
		if body, err := protojson.Marshal(t); err == nil {
			d.Telemetry = body
		}
	}
	return d
}
