package conntrack

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// Direction is seen from the pod.
type Direction uint8

// The directions.
const (
	Inbound Direction = iota
	Outbound
)

// String returns the direction as the access log spells it.
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// Protocol is how the bytes travel between the two proxies.
type Protocol string

// The protocols.
const (
	// TCP is plaintext.
	TCP Protocol = "TCP"
	// HBONE is a stream of an HTTP/2 tunnel on TLS, HBONEQUIC one of HTTP/3 on QUIC.
	HBONE     Protocol = "HBONE"
	HBONEQUIC Protocol = "HBONE-QUIC"
	// Local is spliced inside this process: both pods are its own.
	Local Protocol = "LOCAL"
)

// Connection describes one connection as far as it is known; immutable once
// opened. Nil and zero fields are unknown.
type Connection struct {
	Direction Direction
	Protocol  Protocol
	// Src is the client; OriginalDst what it dialled; ActualDst where the bytes
	// go: the endpoint of an outbound connection, the application of an inbound one.
	Src, OriginalDst, ActualDst netip.AddrPort
	// TunnelDst is the peer's tunnel port, when there is a tunnel.
	TunnelDst netip.AddrPort
	// SrcIdentity and DstIdentity are what mutual TLS proved.
	SrcIdentity, DstIdentity spiffeid.ID
	SrcWorkload, DstWorkload *workload.Workload
	DstService               *workload.Service
	// Attributes are what an inbound connection was authorized on.
	Attributes authz.Attributes
	// Policy is the ALLOW policy that permitted an inbound connection, if one did.
	Policy string
	// Retried is why a first endpoint was given up for this one, if one was.
	Retried error
	// Opened is when the connection was accepted.
	Opened time.Time
}

// Live is one open connection. Make it with Table.Open; it is safe for
// concurrent use.
type Live struct {
	Connection
	table *Table
	cut   context.CancelCauseFunc
	own   relay.Counters
	// sent and received count what this pod's application sent and received:
	// own, or those of the connection's other end.
	sent, received *atomic.Uint64
	report         Report
}

// Counters count the bytes of a connection that was not opened with OpenMirror:
// Sent are those of this pod's application.
func (l *Live) Counters() *relay.Counters { return &l.own }

// Bytes tells how many bytes this pod's application sent and received so far.
func (l *Live) Bytes() (sent, received uint64) { return l.sent.Load(), l.received.Load() }

// Recheck authorizes the connection under policies, and cuts it and returns the
// denial when they no longer permit it. A decision that lacks a policy that has
// not arrived yet cuts nothing: Reauthorize decides when it arrives.
func (l *Live) Recheck(policies authz.Policies) error {
	_, _, err := policies.Authorize(l.Attributes)
	if err == nil || incomplete(err) {
		return nil
	}
	l.cut(err)
	return err
}

// Close takes the connection off the list and reports its end; err is nil when
// it ended in order. Only the first call counts.
func (l *Live) Close(err error) {
	if l.table.remove(l) {
		l.report.Closed(time.Since(l.Opened), err)
	}
}
