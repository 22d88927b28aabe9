package upstream

import (
	"context"
	"net"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Endpoint is one place where a backend's requests are answered. It is a plain
// value; a Dialer gets it to connect to.
type Endpoint struct {
	// UID names the workload in the mesh; it may be empty. Together with Addr and
	// Hostname it tells whether an endpoint is still the same one.
	UID string
	// Addr is where the application listens. Its address is invalid for a workload
	// that is only known by Hostname.
	Addr netip.AddrPort
	// Hostname is resolved by the dialer when Addr has no address.
	Hostname string
	// Identity is who must answer; zero accepts what the dialer accepts.
	Identity spiffeid.ID
	// Tunnelled endpoints are reached through HBONE, others directly.
	Tunnelled bool
	// Place is compared with the waypoint's own.
	Place Place
	// Weight is its share; 0 receives nothing.
	Weight uint32
	// Healthy is what the control plane says: Kubernetes' readiness.
	Healthy bool
	// Secure puts TLS over connections to the application, inside the tunnel where there
	// is one; nil none. When it changes, connections are made anew.
	Secure Securer
}

// Securer puts TLS over a connection to an application. It owns conn, and closes it
// with an error, which is a *SecureError. It must be comparable.
type Securer interface {
	// Secure offers the application protocols, none for what is carried as bytes. ctx
	// bounds the handshake.
	Secure(ctx context.Context, conn net.Conn, protocols ...string) (net.Conn, error)
}

// SecureError says that an application did not prove to be the one that is meant, or
// that there is no TLS with it.
type SecureError struct{ Err error }

func (e *SecureError) Error() string { return "TLS with the application: " + e.Err.Error() }
func (e *SecureError) Unwrap() error { return e.Err }

// Place is where something runs. Empty parts are unknown, and shared with nobody.
type Place struct {
	workload.Locality
	Node, Cluster, Network string
}

// PlaceOf returns where w runs.
func PlaceOf(w *workload.Workload) Place {
	return Place{Locality: w.Locality, Node: w.Node, Cluster: w.ClusterID, Network: w.Network}
}

// EndpointOf returns the endpoint that w is for a port of svc, seen from a waypoint
// in network. like has the family that is preferred; without one the first address counts.
// Otherwise it says why w cannot serve the port.
func EndpointOf(w *workload.Workload, svc *workload.Service, port workload.Port, network string, like netip.Addr) (Endpoint, string) {
	if w.Network != network {
		// Another network is reached through its gateway, which needs a tunnel inside
		// another; its addresses mean nothing here.
		return Endpoint{}, "in another network"
	}
	target := targetPort(w, svc.Key(), port)
	if target == 0 {
		return Endpoint{}, "without this port"
	}
	if !like.IsValid() && len(w.Addresses) > 0 {
		like = w.Addresses[0]
	}
	addr := w.Address(like)
	if !addr.IsValid() && w.Hostname == "" {
		return Endpoint{}, "without an address"
	}
	return Endpoint{
		UID: w.UID, Addr: netip.AddrPortFrom(addr, target), Hostname: w.Hostname,
		Identity: w.Identity(), Tunnelled: w.Protocol == workload.HBONE,
		Place: PlaceOf(w), Weight: w.Capacity, Healthy: w.Healthy,
	}, ""
}

// targetPort maps the service's port: the workload's own mapping comes first, since
// only it knows its named ports; one that lists ports, but not this, does not serve
// it. It is 0 when there is none.
func targetPort(w *workload.Workload, key workload.ServiceKey, port workload.Port) uint16 {
	own := w.Services[key]
	for _, p := range own {
		if p.Service == port.Service {
			if p.Target != 0 {
				return p.Target
			}
			return port.Target
		}
	}
	if len(own) > 0 {
		return 0
	}
	return port.Target
}

// Name is what consistent hashing and session tokens know the endpoint by: its uid,
// so that a pod of a StatefulSet keeps its keys when it comes back with another
// address, else its address.
func (e *Endpoint) Name() string {
	if e.UID != "" {
		return e.UID
	}
	return e.String()
}

// String returns address and port, for logs.
func (e *Endpoint) String() string {
	if !e.Addr.Addr().IsValid() {
		return e.Hostname + ":" + portText(e.Addr.Port())
	}
	return e.Addr.String()
}

// key tells whether two endpoints are one: an address that another pod got, or a
// pod that got another address, starts anew.
type key struct {
	uid, hostname string
	addr          netip.AddrPort
	identity      spiffeid.ID
	tunnelled     bool
}

func (e *Endpoint) key() key { return key{e.UID, e.Hostname, e.Addr, e.Identity, e.Tunnelled} }
