package nexthop

import (
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Kind is how a connection goes on.
type Kind uint8

// The kinds. The zero value is Deny.
const (
	// Deny refuses the connection.
	Deny Kind = iota
	// Direct dials a known workload that is not reached by tunnel.
	Direct
	// HBONE opens a tunnel stream to a workload's node proxy.
	HBONE
	// Waypoint opens a tunnel stream to a waypoint, which decides further.
	Waypoint
	// Passthrough dials the original destination, which the mesh does not know.
	Passthrough
)

// String returns the kind in the words of logs.
func (k Kind) String() string {
	switch k {
	case Direct:
		return "direct"
	case HBONE:
		return "hbone"
	case Waypoint:
		return "waypoint"
	case Passthrough:
		return "passthrough"
	default:
		return "deny"
	}
}

// Tunnelled reports that the connection goes through a tunnel.
func (k Kind) Tunnelled() bool { return k == HBONE || k == Waypoint }

// Input is one connection to decide on.
type Input struct {
	// Source is the workload that opened the connection. Required: a connection
	// of nobody is denied.
	Source *workload.Workload
	// Provisional says that Source is what the node knows of its own pod, and that
	// the control plane has not announced it. See Decision.Wait.
	Provisional bool
	// Avoid are uids of endpoints that just failed: of a service, others are
	// preferred.
	Avoid []string
	// Dest is the original destination.
	Dest netip.AddrPort
	// Network that this node is in.
	Network string
	// Pick returns a number in [0, n) for n > 0; nil always picks 0.
	// math/rand/v2.IntN fits.
	Pick func(n int) int
}

// Decision is the outcome.
type Decision struct {
	Kind Kind
	// Target is what to dial: the tunnel's address for HBONE and Waypoint, the
	// application's for Direct and Passthrough. It is invalid for Deny.
	Target netip.AddrPort
	// Authority is what to ask of the tunnel, empty without one.
	Authority string
	// Expected lists the identities of which the tunnel's peer must show one. It
	// is never empty for a tunnel.
	Expected []spiffeid.ID
	// Workload is what Target belongs to; nil when it is unknown.
	Workload *workload.Workload
	// Service is what the client addressed; nil when it was no service.
	Service *workload.Service
	// Upstream is the application's address behind Target: where the bytes end
	// up as far as this node knows. For a waypoint it is what was dialled.
	Upstream netip.AddrPort
	// Reason says why, for Deny always, else empty.
	Reason string
	// Wait is set when the source was provisional and what the control plane tells
	// of it, such as its locality and services, may change the decision.
	Wait bool
}
