package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/baggage"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/listener"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// serve deals with one connection that a client asks for in a tunnel.
func (w *waypoint) serve(ctx context.Context, c *listener.Connection) {
	refuse := func(status int, err error) {
		w.log.Warn("connection refused", zap.Stringer("src.addr", c.Source), zap.Stringer("src.identity", c.Peer),
			zap.String("dst.target", c.Target), zap.Int("status", status), zap.Error(err))
		c.Refuse(status)
	}
	peer, err := request.NewPeer(c.Peer)
	if err != nil {
		refuse(401, err)
		return
	}
	svc, port, err := w.mesh.Resolve(c.Target, peer.Namespace())
	if err != nil {
		refuse(503, err)
		return
	}
	target := svc.Port(port)
	if target == nil {
		refuse(503, errors.New("service "+svc.Key.String()+" has no such port"))
		return
	}
	destination, err := netip.ParseAddrPort(c.Target)
	if err != nil {
		// By its name: no address is known, and the port is.
		destination = netip.AddrPortFrom(netip.Addr{}, port)
	}
	told, _ := baggage.Parse(c.Request.Baggage) // without it the name is unknown
	client := &forward.Client{
		Identity: c.Peer, Certificate: c.Certificate, Peer: peer, Source: c.Source, Workload: told.WorkloadName, Destination: destination,
		Service: svc.Key, Port: port,
	}
	client.Memo = w.report.Remember(client, told)
	switch target.Protocol {
	case api.Protocol_HTTP1, api.Protocol_HTTP2, api.Protocol_GRPC:
		w.serveHTTP(ctx, c, client)
	default:
		if target.Protocol == api.Protocol_TLS && target.AsksServerName(peer.Namespace()) {
			w.serveNamed(ctx, c, client, svc)
			return
		}
		w.serveBytes(ctx, c, client, svc, refuse)
	}
}

// serveHTTP serves the requests of a connection. Its port is declared to speak HTTP, in
// which clients speak first, so their first words tell the version.
func (w *waypoint) serveHTTP(ctx context.Context, c *listener.Connection, client *forward.Client) {
	conn, err := c.Accept("")
	if err != nil {
		w.log.Debug("client is gone", zap.Error(err))
		return
	}
	defer conn.Close()
	ctx = forward.WithClient(ctx, client)
	first, two, err := w.silent.sniff(conn)
	if err != nil {
		return // closed before it said anything
	}
	client.Version = 1
	if two {
		client.Version = 2
		err = w.http2.Serve(ctx, first)
	} else {
		err = w.http1.Serve(ctx, first)
	}
	if err != nil {
		var bad *message.ProtocolError
		level := w.log.Debug
		if errors.As(err, &bad) {
			level = w.log.Info
		}
		level("connection ended", zap.Stringer("src.addr", c.Source), zap.Stringer("src.identity", c.Peer), zap.Error(err))
	}
}

// serveBytes carries a connection as it is.
func (w *waypoint) serveBytes(ctx context.Context, c *listener.Connection, client *forward.Client, svc *mesh.Service, refuse func(int, error)) {
	b, err := w.forward.Connect(ctx, client, svc, dialer{w.dialer}.Connect)
	if err != nil {
		status := 503
		var refusal *forward.Refusal
		if errors.As(err, &refusal) {
			status = refusal.Status
		}
		refuse(status, err)
		return
	}
	conn, err := c.Accept("")
	if err != nil {
		b.Abandon(err)
		return
	}
	b.Carry(ctx, conn)
}

// serveNamed carries a connection of TLS to where the server name leads that its client
// asks for. It must be accepted before the client tells.
func (w *waypoint) serveNamed(ctx context.Context, c *listener.Connection, client *forward.Client, svc *mesh.Service) {
	conn, err := c.Accept("")
	if err != nil {
		w.log.Debug("client is gone", zap.Error(err))
		return
	}
	name, named, err := forward.ServerName(conn)
	var b *forward.Bytes
	if err == nil {
		client.ServerName = name
		b, err = w.forward.Connect(ctx, client, svc, dialer{w.dialer}.Connect)
	}
	if err != nil {
		w.log.Warn("connection broken off", zap.Stringer("src.addr", c.Source), zap.Stringer("src.identity", c.Peer),
			zap.String("dst.target", c.Target), zap.String("server_name", name), zap.Error(err))
		if r, ok := conn.(interface{ SetLinger(int) error }); ok {
			_ = r.SetLinger(0)
		}
		_ = conn.Close()
		return
	}
	b.Carry(ctx, named)
}

// preface is how HTTP/2 by prior knowledge begins (RFC 9113, 3.4). No request of
// HTTP/1.1 begins like its first four bytes.
var preface = []byte("PRI ")

// sniff tells whether a client speaks HTTP/2, and returns a connection from its first
// byte.
func sniff(conn net.Conn) (net.Conn, bool, error) {
	buf := make([]byte, 0, sniffBytes)
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		known := min(len(buf), len(preface))
		if !bytes.Equal(buf[:known], preface[:known]) || known == len(preface) {
			return &replayed{Conn: conn, first: buf}, known == len(preface) && bytes.Equal(buf[:known], preface), nil
		}
		if err != nil {
			if len(buf) > 0 && errors.Is(err, io.EOF) {
				return &replayed{Conn: conn, first: buf}, false, nil
			}
			return nil, false, err
		}
	}
}

// replayed is a connection of which some was read already.
type replayed struct {
	net.Conn
	first []byte
}

func (c *replayed) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		if c.first = c.first[n:]; len(c.first) == 0 {
			c.first = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite passes half-closes on.
func (c *replayed) CloseWrite() error {
	if s, ok := c.Conn.(message.Stream); ok {
		return s.CloseWrite()
	}
	return nil
}

// SetLinger passes on how the connection is to be closed.
func (c *replayed) SetLinger(sec int) error {
	if s, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return s.SetLinger(sec)
	}
	return nil
}

// dialer connects backends to their endpoints.
type dialer struct{ *tunnel.Dialer }

// Dial implements upstream.Dialer.
func (d dialer) Dial(ctx context.Context, to *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	alpn := "http/1.1"
	if p == upstream.HTTP2 {
		alpn = "h2"
	}
	conn, err := d.connect(ctx, to, alpn)
	if err != nil {
		return nil, err
	}
	if p == upstream.HTTP2 {
		return http2.NewClient(conn, http2.ClientConfig{})
	}
	return http1.NewClient(conn, http1.ClientConfig{})
}

// Connect implements upstream.Connector.
func (d dialer) Connect(ctx context.Context, to *upstream.Endpoint) (net.Conn, error) {
	return d.connect(ctx, to)
}

// connect connects to an application, with TLS where it speaks that itself.
func (d dialer) connect(ctx context.Context, to *upstream.Endpoint, protocols ...string) (net.Conn, error) {
	conn, err := d.Dialer.Dial(ctx, targetOf(to))
	if err != nil || to.Secure == nil {
		return conn, err
	}
	return to.Secure.Secure(ctx, conn, protocols...)
}

func targetOf(e *upstream.Endpoint) tunnel.Target {
	t := tunnel.Target{Addr: e.Addr, Host: e.Hostname, Workload: e.UID}
	if e.Tunnelled {
		t.Identity = e.Identity
	}
	return t
}
