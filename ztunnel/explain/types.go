package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Name is a pod's.
type Name struct{ Namespace, Name string }

// String returns "namespace/name".
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// ParseName reads "namespace/name".
func ParseName(s string) (Name, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return Name{}, fmt.Errorf("%q: must be namespace/name", s)
	}
	return Name{ns, name}, nil
}

// Workload is a workload as far as an explanation needs it.
type Workload struct {
	UID       string       `json:"uid"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Identity  string       `json:"identity"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	// Protocol is HBONE for a member of the mesh, else TCP.
	Protocol string `json:"protocol"`
	Healthy  bool   `json:"healthy"`
	// Pod tells a pod from other workloads, which no node of the mesh serves.
	Pod         bool   `json:"pod"`
	HostNetwork bool   `json:"hostNetwork,omitempty"`
	Waypoint    string `json:"waypoint,omitempty"`
}

func describe(w *workload.Workload) *Workload {
	if w == nil {
		return nil
	}
	out := &Workload{
		UID: w.UID, Namespace: w.Namespace, Name: w.Name, Node: w.Node, Addresses: w.Addresses,
		Protocol: w.Protocol.String(), Healthy: w.Healthy, Pod: w.IsPod(), HostNetwork: w.HostNetwork,
	}
	if id := w.Identity(); !id.IsZero() {
		out.Identity = id.String()
	}
	if w.Waypoint != nil {
		out.Waypoint = w.Waypoint.String()
	}
	return out
}

// Service is a service as far as an explanation needs it.
type Service struct {
	Namespace string   `json:"namespace"`
	Hostname  string   `json:"hostname"`
	Addresses []string `json:"addresses"`
	Ports     []uint16 `json:"ports"`
	Waypoint  string   `json:"waypoint,omitempty"`
	// Shares are the waypoints that share new connections, where there is more than
	// Waypoint.
	Shares    []WaypointShare `json:"waypointShares,omitempty"`
	Endpoints int             `json:"endpoints"`
}

// WaypointShare is a waypoint and its part of new connections, 0 to 1.
type WaypointShare struct {
	Waypoint string  `json:"waypoint"`
	Share    float64 `json:"share"`
}

// Way is one way that a connection can go from the client's node proxy.
type Way struct {
	// Dest is what the client dials.
	Dest netip.AddrPort `json:"dest"`
	// Kind is deny, direct, hbone, waypoint or passthrough.
	Kind string `json:"kind"`
	// Target is what the proxy dials, Authority what it asks of a tunnel, Expected
	// the identities of which the tunnel's peer must prove one.
	Target    netip.AddrPort `json:"target,omitzero"`
	Authority string         `json:"authority,omitempty"`
	Expected  []string       `json:"expected,omitempty"`
	// Upstream is the application's address, as far as this node knows.
	Upstream netip.AddrPort `json:"upstream,omitzero"`
	Workload *Workload      `json:"workload,omitempty"`
	Service  string         `json:"service,omitempty"`
	// SameNode is true when this process delivers to the pod itself.
	SameNode bool `json:"sameNode,omitempty"`
	// Share is the way's part of new connections, 0 to 1.
	Share float64 `json:"share"`
	// Reason says why the connection is denied, or why this way is not taken.
	Reason string `json:"reason,omitempty"`
}

// OutboundAnswer is what /explain/outbound shows.
type OutboundAnswer struct {
	// Node is the node that answers, Snapshot the number of its state of the mesh.
	Node     string `json:"node"`
	Snapshot uint64 `json:"snapshot"`
	// Client is nil when the control plane has not announced it.
	Client *Workload `json:"client,omitempty"`
	// Captured is true when this node proxy serves the client: without it the
	// client's connections pass it by.
	Captured bool     `json:"captured"`
	Service  *Service `json:"service,omitempty"`
	Ways     []Way    `json:"ways"`
	// Problem says why there is no way at all.
	Problem string `json:"problem,omitempty"`
}

// Verdict is what one policy says of the connection.
type Verdict struct {
	Policy string `json:"policy"`
	// Action is Allow or Deny, Scope Global, Namespace or WorkloadSelector.
	Action  string `json:"action"`
	Scope   string `json:"scope"`
	DryRun  bool   `json:"dryRun,omitempty"`
	Matched bool   `json:"matched"`
	// Decides is set for the policy that settled the outcome; for a connection that
	// no ALLOW policy matched, for the nearest.
	Decides bool   `json:"decides,omitempty"`
	Reason  string `json:"reason"`
}

// InboundAnswer is what /explain/inbound shows.
type InboundAnswer struct {
	Node     string    `json:"node"`
	Snapshot uint64    `json:"snapshot"`
	Server   *Workload `json:"server,omitempty"`
	// Captured is true when this node proxy serves the pod; without it nothing is
	// enforced here.
	Captured bool `json:"captured"`
	Allowed  bool `json:"allowed"`
	// Reason says why not; Policy names the policy that settled the outcome, if one
	// did.
	Reason   string    `json:"reason,omitempty"`
	Policy   string    `json:"policy,omitempty"`
	Policies []Verdict `json:"policies"`
}
