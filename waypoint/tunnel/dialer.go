package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
)

// Config is what a Dialer works with.
type Config struct {
	SVID    x509svid.Source
	Bundles x509bundle.Source
	// Budget bounds what the tunnels' receive windows may grow by together; nil gives
	// each tunnel one of its own.
	Budget *hbone.Budget
	// ConnectTimeout bounds dialing, with the TLS handshake. Zero means 10 s.
	ConnectTimeout time.Duration
}

// Dialer connects to endpoints. It is safe for concurrent use.
type Dialer struct {
	cfg  Config
	pool *hbone.Pool
}

// NewDialer returns a Dialer, which its owner ends with Drain.
func NewDialer(cfg Config) *Dialer {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	d := &Dialer{cfg: cfg}
	d.pool = hbone.NewPool(hbone.PoolConfig{Dial: d.tunnel, DialTimeout: cfg.ConnectTimeout})
	return d
}

// Target is an endpoint to connect to.
type Target struct {
	// Addr is the application's address. Outside the mesh its host may be a name
	// instead, in Host.
	Addr netip.AddrPort
	Host string
	// Identity is what the endpoint's node proxy has to prove; zero connects without
	// a tunnel, to endpoints outside the mesh.
	Identity spiffeid.ID
	// Workload is its uid, so that another that gets its address does not get its
	// tunnels.
	Workload string
	// Request describes the client and the waypoint to the endpoint's proxy; its
	// Authority is filled in.
	Request hbone.Request
}

// Dial connects to an endpoint. Through a tunnel it has succeeded when the
// application has taken the connection. An error is always one of a connection that
// carried nothing.
func (d *Dialer) Dial(ctx context.Context, t Target) (net.Conn, error) {
	if t.Identity.IsZero() {
		ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.ConnectTimeout, fmt.Errorf("no connection within %v", d.cfg.ConnectTimeout))
		defer cancel()
		to := t.Addr.String()
		if !t.Addr.Addr().IsValid() {
			to = net.JoinHostPort(t.Host, strconv.Itoa(int(t.Addr.Port())))
		}
		return new(net.Dialer).DialContext(ctx, "tcp", to)
	}
	proxy := netip.AddrPortFrom(t.Addr.Addr(), hbonePort)
	r := t.Request
	r.Authority = t.Addr.String()
	stream, _, err := d.pool.Open(ctx, hbone.Key{Destination: proxy, Peers: t.Identity.String(), Workload: t.Workload}, r)
	if err != nil {
		return nil, fmt.Errorf("%v through %v: %w", t.Addr, proxy, err)
	}
	return NewConn(stream, netip.AddrPort{}, t.Addr), nil
}

// Drain opens no more, and waits for what is open until ctx ends, which breaks it.
func (d *Dialer) Drain(ctx context.Context) error { return d.pool.Drain(ctx) }

// Tunnels describes the tunnels that there are.
func (d *Dialer) Tunnels() []hbone.PooledTunnel { return d.pool.Tunnels() }

// tunnel dials the tunnel of a key.
func (d *Dialer) tunnel(ctx context.Context, key hbone.Key) (hbone.Tunnel, error) {
	expected, err := spiffeid.FromString(key.Peers)
	if err != nil {
		return nil, fmt.Errorf("expected identity %q: %w", key.Peers, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", key.Destination.String())
	if err != nil {
		return nil, err
	}
	secure, err := handshake.Client(ctx, conn, d.cfg.SVID, d.cfg.Bundles, []spiffeid.ID{expected})
	if err != nil {
		return nil, err
	}
	tunnel, err := hbone.NewClient(secure, hbone.ClientConfig{
		ExpiresAt: handshake.ExpiresAt(secure.ConnectionState(), d.cfg.SVID), Budget: d.cfg.Budget,
	})
	if err != nil {
		return nil, err
	}
	return tunnel, nil
}

// Refused reports whether the endpoint's proxy was reached and would not connect,
// and with which status: 401 is a denial by policy there.
func Refused(err error) (status int, ok bool) {
	var s *hbone.StatusError
	if errors.As(err, &s) {
		return s.Status, true
	}
	return 0, false
}
