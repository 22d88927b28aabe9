package listener

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

// Connection is what one client asks for in a tunnel.
type Connection struct {
	// Peer is the client's identity, as TLS proved it.
	Peer spiffeid.ID
	// Source is the client's address: node proxies open tunnels from their pods'.
	Source netip.AddrPort
	// Tunnel is the address where the tunnel ends here.
	Tunnel netip.AddrPort
	// Target is the original destination, IP and port or name and port.
	Target string
	// Certificate is what Peer proved itself with; nobody may change it.
	Certificate *x509.Certificate
	// Request is what the CONNECT said besides.
	Request hbone.Request
	// Received is when it came.
	Received time.Time

	responder hbone.Responder
	answered  bool
}

// Accept tells the client that the way is open, and returns the connection. One of
// Accept and Refuse is called once.
func (c *Connection) Accept(baggage string) (net.Conn, error) {
	c.answered = true
	stream, err := c.responder.Accept(hbone.Response{Status: 200, Baggage: baggage})
	if err != nil {
		return nil, fmt.Errorf("answer the tunnel's request: %w", err)
	}
	target, _ := netip.ParseAddrPort(c.Target)
	return tunnel.NewConn(stream, target, c.Source), nil
}

// Refuse answers 400 for what is asked wrongly, 401 for what is denied, and 503 for
// what cannot be reached.
func (c *Connection) Refuse(status int) {
	c.answered = true
	_ = c.responder.Refuse(status)
}

// Handler deals with one connection and returns when it is done with it. What it did
// not answer is refused with 503. ctx ends when the client is gone, and at the end of
// the drain.
type Handler func(ctx context.Context, c *Connection)

// Config makes a Listener.
type Config struct {
	Gate    *handshake.Gate
	Handler Handler
	// Drain holds connections while they live; once it has begun, more are refused.
	Drain *lifecycle.Drain
	// Budget bounds what the tunnels' receive windows may grow by together; nil gives
	// each tunnel one of its own.
	Budget *hbone.Budget
	Logger *zap.Logger
}

// Listener serves tunnels. It is safe for concurrent use.
type Listener struct {
	cfg    Config
	server hbone.Server
}

// New returns a Listener that serves what it is given.
func New(cfg Config) *Listener {
	l := &Listener{cfg: cfg}
	l.server.Handler, l.server.Budget = l.handle, cfg.Budget
	return l
}

// Serve takes connections from ln, which it owns, until ctx ends; it returns then nil,
// when all connections have ended.
func (l *Listener) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Out of descriptors, mostly: those that there are go on.
			l.cfg.Logger.Warn("cannot accept a connection", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		wg.Go(func() { l.serve(ctx, conn) })
	}
}

func (l *Listener) serve(ctx context.Context, conn net.Conn) {
	source := addrPort(conn.RemoteAddr())
	secure, peer, err := l.cfg.Gate.Accept(ctx, conn, source.Addr())
	if err != nil {
		// In order, and not by a reset, which could overtake the alert that tells why.
		_ = conn.Close()
		l.cfg.Logger.Warn("tunnel refused", zap.Stringer("src.addr", source), zap.Error(err))
		return
	}
	if err := l.server.ServeConn(ctx, secure, peer); err != nil && !errors.Is(err, hbone.ErrServerDraining) {
		l.cfg.Logger.Debug("tunnel ended", zap.Stringer("src.addr", source), zap.Error(err))
	}
}

// handle answers one request of a tunnel.
func (l *Listener) handle(ctx context.Context, r *hbone.ServerRequest) {
	release, ok := l.cfg.Drain.Hold()
	if !ok {
		_ = r.Refuse(503)
		return
	}
	defer release()
	peer, _ := r.Conn.Value.(handshake.Peer)
	switch {
	case r.Method != "CONNECT" || hbone.ValidateAuthority(r.Authority) != nil:
		_ = r.Refuse(400)
		return
	case peer.ID.IsZero(), !peer.Expires.IsZero() && time.Now().After(peer.Expires):
		_ = r.Refuse(401)
		return
	}
	c := &Connection{
		Peer: peer.ID, Certificate: peer.Certificate, Source: r.Conn.Remote, Tunnel: r.Conn.Local, Target: r.Authority,
		Request: r.Request, Received: time.Now(), responder: r.Responder,
	}
	l.cfg.Handler(ctx, c)
	if !c.answered {
		c.Refuse(503)
	}
}

// Drain asks the peers of all tunnels to open no more streams, and waits until they
// have ended; when ctx ends first, it breaks them.
func (l *Listener) Drain(ctx context.Context) {
	settled, cancel := context.WithTimeout(ctx, lastHandshakes)
	l.cfg.Gate.Settle(settled)
	cancel()
	_ = l.server.Drain(ctx)
}

// addrPort is a socket's address, IPv4 as such also from a dual-stack socket.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
