package handshake

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

// Peer is what TLS proved about the other end of a connection.
type Peer struct {
	ID spiffeid.ID
	// Expires is when its certificate does.
	Expires time.Time
	// Certificate is that certificate; nobody may change it.
	Certificate *x509.Certificate
}

// Identify reads the peer of a finished handshake.
func Identify(cs tls.ConnectionState) (Peer, error) {
	id, err := mtls.Peer(cs)
	p := Peer{ID: id, Expires: mtls.NotAfter(cs)}
	if len(cs.PeerCertificates) > 0 {
		p.Certificate = cs.PeerCertificates[0]
	}
	return p, err
}

// Certificate tells whether the proxy can prove who it is.
type Certificate interface {
	// Ready waits until there is a valid certificate.
	Ready(ctx context.Context) error
}

// Config makes a Gate.
type Config struct {
	// TLS is the server's configuration.
	TLS *tls.Config
	// Certificate: a connection that comes before the first one waits for it.
	Certificate Certificate
	// Timeout bounds one handshake with all its waits; zero means 10 s.
	Timeout time.Duration
}

// Gate does the handshakes of accepted connections. It is safe for concurrent use.
type Gate struct {
	cfg    Config
	places *places
}

// NewGate returns a Gate that admits connections.
func NewGate(cfg Config) *Gate {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Gate{cfg: cfg, places: newPlaces()}
}

// Accept does the handshake on conn, which stays the caller's to close when it fails.
// The error is an *Error.
func (g *Gate) Accept(ctx context.Context, conn net.Conn, source netip.Addr) (*tls.Conn, Peer, error) {
	secure, peer, err := g.accept(ctx, conn, source)
	if err != nil {
		return nil, Peer{}, &Error{Err: err}
	}
	return secure, peer, nil
}

func (g *Gate) accept(ctx context.Context, conn net.Conn, source netip.Addr) (*tls.Conn, Peer, error) {
	if err := g.places.admit(source); err != nil {
		return nil, Peer{}, err
	}
	defer g.places.leave(source)
	ctx, cancel := context.WithTimeoutCause(ctx, g.cfg.Timeout, fmt.Errorf("no TLS handshake within %v", g.cfg.Timeout))
	defer cancel()
	if err := g.places.begin(ctx); err != nil {
		return nil, Peer{}, err
	}
	defer g.places.end()
	if err := g.cfg.Certificate.Ready(ctx); err != nil {
		return nil, Peer{}, err
	}
	secure := tls.Server(hbone.WrapConn(conn), g.cfg.TLS)
	if err := shake(ctx, secure); err != nil {
		return nil, Peer{}, err
	}
	peer, err := Identify(secure.ConnectionState())
	return secure, peer, err
}

// Settle waits until the handshakes under way have ended, or ctx ends.
func (g *Gate) Settle(ctx context.Context) { g.places.settle(ctx) }

func shake(ctx context.Context, conn *tls.Conn) error {
	err := conn.HandshakeContext(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Error is a connection whose peer could not be identified, or did not accept us.
type Error struct{ Err error }

func (e *Error) Error() string { return "TLS handshake: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
