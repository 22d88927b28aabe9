package explain

import (
	"context"
	"strings"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// sync asks every control plane what the node proxies on the ways have
// acknowledged.
func (x *run) sync() []Proxy {
	out := []Proxy{}
	control, err := x.mesh.Components(x.ctx, mesh.Istiod)
	if err != nil {
		for _, p := range x.asked {
			out = append(out, Proxy{Node: p.Node, Ztunnel: p.Name, Problem: err.Error()})
		}
		return out
	}
	answers, errs := mesh.Each(x.ctx, control, func(ctx context.Context, c *mesh.Component) (mesh.Syncz, error) { return c.Syncz(ctx) })
	for _, p := range x.asked {
		proxy := Proxy{Node: p.Node, Ztunnel: p.Name}
		var failed error
		for i, a := range answers {
			if errs[i] != nil {
				failed = errs[i]
				continue
			}
			for _, c := range a.Clients {
				if c.Machine == p.Node && c.OfZtunnel() && (x.mesh.Local() || strings.Contains(c.Node, "~"+p.Name+".")) {
					proxy.fill(control[i], a, c)
				}
			}
		}
		switch {
		case proxy.Istiod != "":
		case failed != nil:
			proxy.Problem = failed.Error()
		default:
			proxy.Problem = "no istiod serves it now: it works with what it was told last"
		}
		if !proxy.InSync {
			x.advise("the ztunnel of node %s is not in sync with the control plane: what it would do may change in a moment", p.Node)
		}
		out = append(out, proxy)
	}
	return out
}

func (p *Proxy) fill(istiod *mesh.Component, a mesh.Syncz, c mesh.Client) {
	p.Istiod, p.InSync, p.Types = istiod.String(), true, map[string]Sync{}
	for url, w := range c.Types {
		p.Types[url[strings.LastIndexByte(url, '.')+1:]] = Sync{State: w.State, Sent: w.SentVersion, Acked: w.AckedVersion, AckedAt: w.AckedAt, Resources: w.Resources}
		switch {
		case w.LastNack != "":
			p.InSync, p.Problem = false, "it refused a change: "+w.LastNack
		case w.State != "SYNCED":
			p.InSync, p.Problem = false, "it has not acknowledged the newest configuration"
		}
	}
	if a.Behind {
		p.InSync, p.Problem = false, "istiod has read objects that it does not serve yet"
	}
}
