package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// defaultConnectTimeout applies where Config says nothing: how long a client is
// held while its destination does not answer.
const defaultConnectTimeout = 10 * time.Second

// Mesh is what outbound needs to know of the mesh; it reads the newest state on
// every call.
type Mesh interface {
	// Local returns the workload of this pod. When the control plane has not
	// announced it yet, Local waits for it, up to a limit of its own or ctx.
	Local(ctx context.Context) (*workload.Workload, error)
	// Self returns the workload of this pod; when the control plane has not
	// announced it yet, what is known of it besides, with the client's address.
	Self(client netip.Addr) (w *workload.Workload, announced bool)
	// Decide chooses the next hop of a connection; it fills in Network and Pick.
	Decide(in nexthop.Input) nexthop.Decision
}

// Dialer opens connections inside the pod's namespace, marked as the proxy's.
type Dialer interface {
	DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error)
}

// Deliverer finds the inbound side of a pod that this process serves.
type Deliverer interface {
	// Inbound returns nil when the workload is not a pod that is here.
	Inbound(w *workload.Workload) *inbound.Proxy
}

// Certificate tells whether the pod can prove who it is.
type Certificate interface {
	// Ready waits until the first certificate is there.
	Ready(ctx context.Context) error
}

// Config is what one pod's outbound proxy works with.
type Config struct {
	// UID is the pod's, Pod its "namespace/name" for errors.
	UID, Pod string
	Mesh     Mesh
	Dialer   Dialer
	// Pool holds the pod's tunnels; its dial function is Tunnels.Dial.
	Pool *hbone.Pool
	// Protocol is what the pool's tunnels speak, for the log.
	Protocol conntrack.Protocol
	Table    *conntrack.Table
	// Identity is the pod's own and Certificate its proof.
	Identity    spiffeid.ID
	Certificate Certificate
	// SameNode delivers inside the process; nil always tunnels.
	SameNode Deliverer
	// Baggage describes the pod in requests.
	Baggage func(*workload.Workload) string
	// ConnectTimeout bounds everything until bytes flow, except the wait for the
	// pod's announcement; default 10 s.
	ConnectTimeout time.Duration
	Logger         *zap.Logger
}

// Proxy is the outbound side of one pod. It is safe for concurrent use.
type Proxy struct{ cfg Config }

// New returns a Proxy that does nothing until connections are handed to it.
func New(cfg Config) *Proxy {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	return &Proxy{cfg: cfg}
}

// Refusal is a connection that we refuse, for a reason that is ours.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

// DialError is a next hop that could not be connected to.
type DialError struct {
	// Target is what was dialled.
	Target netip.AddrPort
	Err    error
}

func (e *DialError) Error() string { return fmt.Sprintf("connect to %v: %v", e.Target, e.Err) }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// carrier carries the client's bytes until both ends are done, like relay.Join.
type carrier func(ctx context.Context, client *net.TCPConn, counters *relay.Counters) error

// Serve carries one connection that was redirected to 15001, and returns when it
// has ended. It owns client.
func (p *Proxy) Serve(ctx context.Context, client *net.TCPConn) {
	c := conntrack.Connection{
		Direction: conntrack.Outbound, Protocol: conntrack.TCP,
		Src: addrPort(client.RemoteAddr()), SrcIdentity: spiffeid.ID{}, Opened: time.Now(),
	}
	carry, err := p.connect(ctx, client, &c)
	if err != nil {
		relay.Reset(client)
		p.cfg.Table.Fail(c, err)
		return
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	live := p.cfg.Table.Open(c, cut)
	live.Close(carry(ctx, client, live.Counters()))
}

// connect finds and connects the next hop and fills c with what it learns.
func (p *Proxy) connect(ctx context.Context, client *net.TCPConn, c *conntrack.Connection) (carrier, error) {
	dst, err := sockopt.OriginalDst(client)
	if err != nil {
		return nil, err
	}
	c.OriginalDst, c.ActualDst = dst, dst
	if dst == addrPort(client.LocalAddr()) {
		return nil, &Refusal{Reason: "the connection was made to 15001 itself, not redirected to it"}
	}
	d, err := p.decide(ctx, c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	if d.Kind.Tunnelled() {
		// Before the attempts: it is not the endpoint's fault when this takes long.
		if err := p.cfg.Certificate.Ready(ctx); err != nil {
			return nil, fmt.Errorf("certificate of pod %s: %w", p.cfg.Pod, err)
		}
	}
	return p.attempts(ctx, c, d)
}

// decide chooses the next hop. A pod that the control plane has not announced yet
// is held only when the choice depends on more than its name, which the node
// agent told.
func (p *Proxy) decide(ctx context.Context, c *conntrack.Connection) (nexthop.Decision, error) {
	source, announced := p.cfg.Mesh.Self(c.Src.Addr())
	d := p.cfg.Mesh.Decide(nexthop.Input{Source: source, Provisional: !announced, Dest: c.OriginalDst})
	if d.Wait {
		var err error
		if source, err = p.cfg.Mesh.Local(ctx); err != nil {
			return d, fmt.Errorf("pod %s is not known: %w", p.cfg.Pod, err)
		}
		d = p.cfg.Mesh.Decide(nexthop.Input{Source: source, Dest: c.OriginalDst})
	}
	c.SrcWorkload = source
	describe(c, d)
	return d, nil
}

// describe fills c with what d says of the connection's other end.
func describe(c *conntrack.Connection, d nexthop.Decision) {
	c.Protocol, c.TunnelDst, c.SrcIdentity, c.DstIdentity = conntrack.TCP, netip.AddrPort{}, spiffeid.ID{}, spiffeid.ID{}
	c.DstWorkload, c.DstService, c.ActualDst = d.Workload, d.Service, c.OriginalDst
	if d.Upstream.IsValid() {
		c.ActualDst = d.Upstream
	}
}

// try connects one next hop.
func (p *Proxy) try(ctx context.Context, c *conntrack.Connection, d nexthop.Decision) (carrier, error) {
	switch d.Kind {
	case nexthop.Direct, nexthop.Passthrough:
		return p.plain(ctx, d)
	case nexthop.HBONE, nexthop.Waypoint:
		if err := p.cfg.Certificate.Ready(ctx); err != nil {
			return nil, fmt.Errorf("certificate of pod %s: %w", p.cfg.Pod, err)
		}
		c.SrcIdentity = p.cfg.Identity
		if carry, err := p.sameNode(ctx, c, d); carry != nil || err != nil {
			return carry, err
		}
		return p.tunnel(ctx, c, d)
	}
	return nil, &Refusal{Reason: d.Reason}
}

// plain connects to what is not in the mesh, or not reached by a tunnel.
func (p *Proxy) plain(ctx context.Context, d nexthop.Decision) (carrier, error) {
	upstream, err := p.cfg.Dialer.DialTCP(ctx, netip.Addr{}, d.Target)
	if err != nil {
		return nil, &DialError{Target: d.Target, Err: err}
	}
	return func(ctx context.Context, client *net.TCPConn, counters *relay.Counters) error {
		return relay.Join(ctx, client, upstream, counters)
	}, nil
}

// sameNode delivers to a pod of this process; a nil carrier means that the
// destination is not one.
func (p *Proxy) sameNode(ctx context.Context, c *conntrack.Connection, d nexthop.Decision) (carrier, error) {
	if p.cfg.SameNode == nil || d.Kind != nexthop.HBONE || d.Workload == nil {
		return nil, nil
	}
	in := p.cfg.SameNode.Inbound(d.Workload)
	if in == nil {
		return nil, nil
	}
	// The peer is named by this process, not proved by TLS; it must still be one of
	// those that the decision allows.
	peer := in.Identity()
	if !expects(d.Expected, peer) {
		return nil, nil // TLS will say so
	}
	source, ok := sourceFor(c, d.Upstream.Addr())
	if !ok {
		return nil, nil // dialling will say so
	}
	c.Protocol, c.DstIdentity = conntrack.Local, peer
	l := inbound.Local{Source: source, Identity: p.cfg.Identity, Target: d.Upstream}
	if d.Service != nil {
		l.Host = d.Service.Hostname
	}
	run, err := in.Deliver(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("delivery on this node: %w", err)
	}
	return run, nil
}

// sourceFor is the client's address of the destination's family, which differs
// from the one that it used where a service of one family has an endpoint of the
// other.
func sourceFor(c *conntrack.Connection, dst netip.Addr) (netip.AddrPort, bool) {
	if c.Src.Addr().Is4() == dst.Is4() {
		return c.Src, true
	}
	other := c.SrcWorkload.Address(dst)
	return netip.AddrPortFrom(other, c.Src.Port()), other.IsValid() && other.Is4() == dst.Is4()
}

// tunnel opens a stream to the next hop's proxy.
func (p *Proxy) tunnel(ctx context.Context, c *conntrack.Connection, d nexthop.Decision) (carrier, error) {
	c.Protocol, c.TunnelDst = p.cfg.Protocol, d.Target
	req := hbone.Request{
		Authority:   d.Authority,
		Forwarded:   forwarded(c.Src, d.Service),
		Traceparent: traceparent(),
	}
	if p.cfg.Baggage != nil {
		req.Baggage = p.cfg.Baggage(c.SrcWorkload)
	}
	key := hbone.Key{Source: p.cfg.UID, Destination: d.Target, Peers: joinPeers(d.Expected)}
	if d.Workload != nil {
		key.Workload = d.Workload.UID
	}
	stream, _, err := p.cfg.Pool.Open(ctx, key, req)
	var status *hbone.StatusError
	if err != nil && !errors.As(err, &status) {
		return nil, &DialError{Target: d.Target, Err: err}
	}
	// There is an answer, so both ends have proved who they are.
	if len(d.Expected) == 1 {
		c.DstIdentity = d.Expected[0]
	}
	if err != nil {
		return nil, err
	}
	return stream.Join, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
