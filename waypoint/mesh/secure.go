package mesh

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// security is the TLS of one destination's application: an upstream.Securer.
type security struct{ cfg *tls.Config }

// compileTLS returns what t describes, nil when it is nil. hostname is the service's.
func (m *Mesh) compileTLS(t *api.Tls, hostname string) (*security, error) {
	if t == nil {
		return nil, nil
	}
	a := mtls.Application{
		ServerName: t.GetServerName(), SubjectNames: t.GetSubjectNames(), Insecure: t.GetInsecure(),
		Certificate: t.GetClientCertificate(), Key: t.GetClientKey(),
	}
	if a.ServerName == "" {
		a.ServerName = hostname
	}
	switch {
	case t.GetMesh():
		a.SVID, a.Bundles = m.cfg.SVID, m.cfg.Bundles
	case t.GetCaCertificatesFile() != "":
		a.Roots = mtls.RootsFromFile(t.GetCaCertificatesFile())
	case t.GetCaCertificates() != "":
		roots, err := mtls.RootsFromPEM([]byte(t.GetCaCertificates()))
		if err != nil {
			return nil, err
		}
		a.Roots = roots
	}
	cfg, err := mtls.ApplicationClient(a)
	if err != nil {
		return nil, err
	}
	return &security{cfg}, nil
}

// Secure implements upstream.Securer.
func (s *security) Secure(ctx context.Context, conn net.Conn, protocols ...string) (net.Conn, error) {
	cfg := s.cfg.Clone()
	cfg.NextProtos = protocols
	c := tls.Client(conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &upstream.SecureError{Err: err}
	}
	return &secured{Conn: c}, nil
}

// secured is a connection with TLS that can be reset like the one below it.
type secured struct {
	*tls.Conn
	reset atomic.Bool
}

// SetLinger with 0 makes Close break the connection off: its peer must not take what it
// has for the whole.
func (c *secured) SetLinger(sec int) error {
	c.reset.Store(sec == 0)
	if below, ok := c.NetConn().(interface{ SetLinger(int) error }); ok {
		return below.SetLinger(sec)
	}
	return nil
}

// Close closes the connection, without TLS's own farewell when it is reset.
func (c *secured) Close() error {
	if c.reset.Load() {
		return c.NetConn().Close()
	}
	return c.Conn.Close()
}
