package mesh

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// security is the TLS of one destination's application: an upstream.Securer.
type security struct{ cfg *tls.Config }

// security returns what t describes, nil when it is nil.
func (c *compiler) security(t *api.Tls) (*security, error) {
	if t == nil {
		return nil, nil
	}
	said, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return nil, err
	}
	same := c.tls[string(said)]
	if same == nil {
		same = c.before[string(said)]
	}
	if same == nil {
		if same, err = c.compileTLS(t); err != nil {
			return nil, err
		}
	}
	c.tls[string(said)] = same
	return same, nil
}

func (c *compiler) compileTLS(t *api.Tls) (*security, error) {
	a := mtls.Application{
		ServerName: t.GetServerName(), SubjectNames: t.GetSubjectNames(), Insecure: t.GetInsecure(),
		Certificate: t.GetClientCertificate(), Key: t.GetClientKey(),
	}
	if a.ServerName == "" {
		a.ServerName = c.hostname
	}
	switch {
	case t.GetMesh():
		a.SVID, a.Bundles = c.cfg.SVID, c.cfg.Bundles
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
