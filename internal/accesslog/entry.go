package accesslog

import (
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Direction is seen from the pod.
type Direction uint8

// The directions.
const (
	Inbound Direction = iota
	Outbound
)

// String returns the direction as the log spells it.
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// Entry is one connection. Zero fields are left out of the line, except bytes
// and duration.
type Entry struct {
	Direction Direction
	// Source is the client's address.
	Source         netip.AddrPort
	SourceWorkload *workload.Workload
	// SourceIdentity and DestinationIdentity are set only when they were proved
	// by mutual TLS.
	SourceIdentity spiffeid.ID
	// Destination is what was dialled on the wire: the tunnel's address for a
	// tunnelled connection.
	Destination netip.AddrPort
	// HBONEAddr is the tunnel request's authority.
	HBONEAddr           string
	DestinationService  *workload.Service
	DestinationWorkload *workload.Workload
	DestinationIdentity spiffeid.ID
	// FromClient counts bytes from the client to the server, FromServer back,
	// whatever the direction. The line tells them as seen from the pod.
	FromClient, FromServer uint64
	Duration               time.Duration
	// Err is why the connection failed or was denied; nil for a good end.
	Err error
	// Policy is the policy that allowed or denied.
	Policy string
	// Carrier is what the tunnel ran on, h2 or h3.
	Carrier string
	// Retried is why a first endpoint was given up for this one, if one was.
	Retried error
}

// parts says how much of an entry a line tells.
type parts uint8

const (
	addressesOnly parts = iota
	withPeers
	withTotals
)

// fields writes the entry's fields in Istio's order, then ours.
func (e *Entry) fields(f *Line, p parts) {
	f.Addr("src.addr", e.Source)
	if p >= withPeers {
		if w := e.SourceWorkload; w != nil {
			f.Text("src.workload", w.Name)
			f.Text("src.namespace", w.Namespace)
		}
		f.Identity("src.identity", e.SourceIdentity)
		if w := e.SourceWorkload; w != nil {
			f.Text("src.cluster", w.ClusterID)
		}
	}
	f.Addr("dst.addr", e.Destination)
	if p >= withPeers {
		f.authority("dst.hbone_addr", e.HBONEAddr)
		if s := e.DestinationService; s != nil {
			f.Text("dst.service", s.Hostname)
		}
		if w := e.DestinationWorkload; w != nil {
			f.Text("dst.workload", w.Name)
			f.Text("dst.namespace", w.Namespace)
		}
		f.Identity("dst.identity", e.DestinationIdentity)
		if w := e.DestinationWorkload; w != nil {
			f.Text("dst.cluster", w.ClusterID)
		}
	}
	f.Text("direction", e.Direction.String())
	if p >= withTotals {
		sent, received := e.FromClient, e.FromServer
		if e.Direction == Inbound {
			sent, received = received, sent
		}
		f.Number("bytes_sent", sent)
		f.Number("bytes_recv", received)
		f.Millis("duration", e.Duration)
	}
	if e.Err != nil {
		f.Text("error", clip(e.Err.Error()))
	}
	if p >= withPeers {
		f.Text("policy", clip(e.Policy))
		f.Text("carrier", e.Carrier)
		if e.Retried != nil {
			f.Text("retried", clip(e.Retried.Error()))
		}
	}
}

func clip(s string) string {
	if len(s) <= maxErrorBytes {
		return s
	}
	return s[:maxErrorBytes] + "…"
}
