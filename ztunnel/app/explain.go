package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/explain"
)

// explainPages adds the pages that say what would become of a connection here.
func (z *ztunnel) explainPages(srv *admin.Server) {
	srv.Handle("GET /explain/outbound", "?client=NAMESPACE/POD&dest=IP:PORT | &service=NAMESPACE/HOSTNAME&port=PORT: where a connection of a pod would go",
		answer(z.explainOutbound))
	srv.Handle("GET /explain/inbound", "?server=NAMESPACE/POD&dest=IP:PORT&source=IP[&identity=SPIFFE-ID]: whether a connection to a pod of this node would pass",
		answer(z.explainInbound))
}

// answer serves what f makes of a query as JSON.
func answer[T any](f func(r *http.Request, q url.Values) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := f(r, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(body, '\n'))
	})
}

func (z *ztunnel) explainOutbound(_ *http.Request, values url.Values) (a explain.OutboundAnswer, err error) {
	q := explain.OutboundQuery{}
	if q.Client, err = explain.ParseName(values.Get("client")); err != nil {
		return a, fmt.Errorf("client=%w", err)
	}
	if dest := values.Get("dest"); dest != "" {
		if q.Dest, err = netip.ParseAddrPort(dest); err != nil {
			return a, fmt.Errorf("dest=%w", err)
		}
	} else {
		var ok bool
		if q.Service, ok = workload.ParseServiceKey(values.Get("service")); !ok {
			return a, fmt.Errorf("service=%q: must be namespace/hostname; or give dest=IP:PORT", values.Get("service"))
		}
		port, err := strconv.ParseUint(values.Get("port"), 10, 16)
		if err != nil || port == 0 {
			return a, fmt.Errorf("port=%q: must be a port number", values.Get("port"))
		}
		q.Port = uint16(port)
	}
	snap := z.store.Snapshot()
	a = explain.Outbound(snap, q, z.cfg.Network)
	a.Node, a.Captured = z.cfg.Node, z.pods.named(q.Client.Namespace, q.Client.Name) != nil
	if !z.cfg.SameNodeEncrypt {
		for i := range a.Ways {
			way := &a.Ways[i]
			if way.Kind == "hbone" && way.Workload != nil {
				w := snap.WorkloadByUID(way.Workload.UID)
				way.SameNode = w != nil && z.pods.Inbound(w) != nil
			}
		}
	}
	return a, nil
}

func (z *ztunnel) explainInbound(r *http.Request, values url.Values) (a explain.InboundAnswer, err error) {
	server, err := explain.ParseName(values.Get("server"))
	if err != nil {
		return a, fmt.Errorf("server=%w", err)
	}
	at := authz.Attributes{}
	if at.Destination, err = netip.ParseAddrPort(values.Get("dest")); err != nil {
		return a, fmt.Errorf("dest=%w", err)
	}
	if at.Source, err = netip.ParseAddr(values.Get("source")); err != nil {
		return a, fmt.Errorf("source=%w", err)
	}
	if id := values.Get("identity"); id != "" {
		if at.Identity, err = spiffeid.FromString(id); err != nil {
			return a, fmt.Errorf("identity=%q: %w", id, err)
		}
	}
	x := z.pods.named(server.Namespace, server.Name)
	if x != nil {
		err = x.inbound.Rehearse(r.Context(), at.Source, at.Identity, at.Destination)
	}
	// Without a proxy nothing is enforced: the pod answers for itself.
	a = explain.Inbound(z.store.Snapshot(), server, at, err)
	a.Node, a.Captured = z.cfg.Node, x != nil
	return a, nil
}

// named returns the proxies of a pod that is served here, or nil.
func (p *pods) named(namespace, name string) *podProxy {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.byName[podName{namespace, name}]
}
