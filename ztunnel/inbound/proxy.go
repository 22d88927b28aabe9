package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// Mesh is what inbound needs to know of the mesh; it reads the newest state on
// every call.
type Mesh interface {
	// Local returns the workload of this pod. When the control plane has not
	// announced it yet, Local waits for it, up to a limit of its own or ctx.
	Local(ctx context.Context) (*workload.Workload, error)
	// Policies are those in force for this pod now; known is false while the pod
	// is not announced.
	Policies() (policies authz.Policies, known bool)
	// ByAddr returns the workload at an address of this network, or nil.
	ByAddr(addr netip.Addr) *workload.Workload
	// Joined returns when local, known before, became reached by tunnels; zero when
	// that was long ago, or it always was as far as this node knows.
	Joined(local *workload.Workload) time.Time
	// Left returns this pod's workload as soon as it is announced as not reached by
	// tunnels; nil when ctx ends first.
	Left(ctx context.Context) *workload.Workload
	// Service returns the service of that hostname which local belongs to, or nil.
	Service(local *workload.Workload, hostname string) *workload.Service
}

// Dialer opens connections inside the pod's namespace, marked as the proxy's.
type Dialer interface {
	// DialTCP connects to dst from src (any port), which need not be an address of
	// the namespace; a zero src leaves the choice to the kernel.
	DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (*net.TCPConn, error)
}

// Config is what one pod's inbound proxy works with.
type Config struct {
	// Pod is "namespace/name", for errors and logs.
	Pod    string
	Mesh   Mesh
	Dialer Dialer
	Table  *conntrack.Table
	// Drain holds the requests of tunnels and of other pods here while they live;
	// once it has begun, more are refused. Who calls ServePlaintext holds it.
	Drain *lifecycle.Drain
	// TLS and QUIC are the server's configurations for the two carriers.
	TLS, QUIC *tls.Config
	// Certificate is what they prove the pod's identity with. A tunnel that comes
	// before the first certificate waits for it, within the handshake's timeout.
	Certificate handshake.Certificate
	// Budget bounds what the tunnels' receive windows may grow by together; nil
	// gives each tunnel one of its own.
	Budget *hbone.Budget
	// Identity is the pod's own, for the log.
	Identity spiffeid.ID
	// Baggage describes the pod in answers; see interop of HBONE.
	Baggage func(*workload.Workload) string
	// HandshakeTimeout and ConnectTimeout default to 10 s each.
	HandshakeTimeout, ConnectTimeout time.Duration
	Logger                           *zap.Logger
}

// Proxy is the inbound side of one pod. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	log     *zap.Logger
	gate    *handshake.Gate
	tunnels tunnels
}

// New returns a Proxy that does nothing until connections are handed to it.
func New(cfg Config) *Proxy {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	p := &Proxy{cfg: cfg, log: cfg.Logger, gate: handshake.NewGate(handshake.Config{
		TLS: cfg.TLS, Certificate: cfg.Certificate, Timeout: cfg.HandshakeTimeout,
	})}
	p.tunnels.init(p)
	return p
}

// The ports of the proxy itself, which are no applications.
var ownPorts = []uint16{15001, 15006, 15008}

// request is one connection that asks for the application.
type request struct {
	protocol conntrack.Protocol
	// source is the client's address as TCP showed it, identity what TLS proved.
	source   netip.AddrPort
	identity spiffeid.ID
	// target is the application's address, tunnel where the tunnel ended.
	target netip.AddrPort
	tunnel netip.AddrPort
	// host is the service that the client dialled, by its own account.
	host string
	// received is when the connection or request arrived.
	received time.Time
	// rehearsal is set when there is no connection: nothing is logged.
	rehearsal bool
}

// Refusal is why a connection does not reach the application, for another
// reason than a policy.
type Refusal struct {
	// Status is the answer of a tunnel.
	Status int
	Reason string
	Err    error
}

func (r *Refusal) Error() string {
	if r.Err == nil {
		return r.Reason
	}
	return r.Reason + ": " + r.Err.Error()
}

// Unwrap returns the cause, if there is one.
func (r *Refusal) Unwrap() error { return r.Err }

// status is the answer of a tunnel to a request that ended with err.
func status(err error) int {
	var refusal *Refusal
	var denial *authz.Denial
	switch {
	case errors.As(err, &denial):
		return 401
	case errors.As(err, &refusal):
		return refusal.Status
	}
	return 503
}

// decide is the one decision of all doors. It returns the connection as far as
// it is known, also with an error.
func (p *Proxy) decide(ctx context.Context, r request) (conntrack.Connection, authz.Permit, error) {
	c := conntrack.Connection{
		Direction: conntrack.Inbound, Protocol: r.protocol,
		Src: r.source, OriginalDst: r.target, ActualDst: r.target, TunnelDst: r.tunnel,
		SrcIdentity: r.identity, Opened: r.received,
		Attributes: authz.Attributes{Source: r.source.Addr(), Identity: r.identity, Destination: r.target},
	}
	if !r.identity.IsZero() {
		c.DstIdentity = p.cfg.Identity
	}
	local, err := p.cfg.Mesh.Local(ctx)
	if err != nil {
		return c, authz.Permit{}, &Refusal{Status: 503, Reason: "pod " + p.cfg.Pod + " is not known", Err: err}
	}
	c.SrcWorkload, c.DstWorkload = p.cfg.Mesh.ByAddr(r.source.Addr()), local
	if r.host != "" {
		c.DstService = p.cfg.Mesh.Service(local, r.host)
	}
	if !slices.Contains(local.Addresses, r.target.Addr()) {
		return c, authz.Permit{}, &Refusal{Status: 400, Reason: fmt.Sprintf("%v is not an address of pod %s", r.target.Addr(), p.cfg.Pod)}
	}
	if slices.Contains(ownPorts, r.target.Port()) {
		return c, authz.Permit{}, &Refusal{Status: 503, Reason: fmt.Sprintf("port %d of pod %s is the proxy's own: the connection would loop", r.target.Port(), p.cfg.Pod)}
	}
	if r.protocol == conntrack.TCP && c.SrcWorkload != nil && c.SrcWorkload.Protocol == workload.HBONE && !p.takesPlaintext(ctx, &c, local) {
		return c, authz.Permit{}, &Refusal{Status: 401, Reason: fmt.Sprintf("plaintext from %v, which is pod %s/%s of the mesh and has to use mutual TLS",
			r.source.Addr(), c.SrcWorkload.Namespace, c.SrcWorkload.Name)}
	}
	policies, known := p.cfg.Mesh.Policies()
	if !known {
		return c, authz.Permit{}, &Refusal{Status: 503, Reason: "the policies of pod " + p.cfg.Pod + " are not known"}
	}
	permit, dry, err := policies.Authorize(c.Attributes)
	c.Policy = permit.Policy()
	for _, d := range dry {
		if d.WouldDeny && !r.rehearsal {
			p.log.Info("dry-run policy would deny", zap.String("policy", d.Policy), zap.Stringer("src.addr", r.source),
				zap.Stringer("src.identity", r.identity), zap.Stringer("dst.addr", r.target))
		}
	}
	return c, permit, err
}

// takesPlaintext tells whether a member of the mesh that sends plaintext to this pod
// does as it was told: to a pod that joins while it runs, whose proxy works before
// its peers hear of it, and to one that leaves, of which some peers hear before its
// own node does. That is waited for, shortly: who is not told so is refused anyway.
// Policies, and so STRICT, apply at all times.
func (p *Proxy) takesPlaintext(ctx context.Context, c *conntrack.Connection, local *workload.Workload) bool {
	if local.Protocol != workload.HBONE || time.Since(p.cfg.Mesh.Joined(local)) < joinSettle {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, joinSettle)
	defer cancel()
	left := p.cfg.Mesh.Left(ctx)
	if left == nil {
		return false
	}
	c.DstWorkload = left
	return true
}

// connect opens the connection to the application. It takes the permit as a
// value, so that only an authorized connection can get here.
func (p *Proxy) connect(ctx context.Context, permit authz.Permit, c *conntrack.Connection) (*net.TCPConn, error) {
	if !permit.Valid() {
		panic("inbound: connect without a permit")
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	app, err := p.cfg.Dialer.DialTCP(ctx, c.Src.Addr(), c.ActualDst)
	if err != nil {
		return nil, &Refusal{Status: 503, Reason: "connect to the application", Err: err}
	}
	return app, nil
}

// open lists the connection.
func (p *Proxy) open(c conntrack.Connection, cut context.CancelCauseFunc) *conntrack.Live {
	live := p.cfg.Table.Open(c, cut)
	p.recheck(live)
	return live
}

// recheck authorizes a listed connection once more: a policy that came since
// decide is either seen here or, because the connection is listed, cuts it.
func (p *Proxy) recheck(live *conntrack.Live) {
	if policies, known := p.cfg.Mesh.Policies(); known {
		_ = live.Recheck(policies) // cuts by itself
	}
}

// errDraining answers what arrives after the drain began.
var errDraining = errors.New("proxy is draining")
