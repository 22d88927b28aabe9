package ca_test

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/mtls"
)

type side struct{ id spiffeid.ID }

// handshake runs TLS between the two configurations over an in-memory conn.
func handshake(t *testing.T, client, server *tls.Config) (c, s side) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	errs := make(chan error, 1)
	go func() {
		conn := tls.Server(b, server)
		err := conn.HandshakeContext(t.Context())
		if err == nil {
			s.id, err = mtls.Peer(conn.ConnectionState())
		}
		errs <- err
	}()
	conn := tls.Client(a, client)
	must(t, conn.HandshakeContext(t.Context()))
	var err error
	c.id, err = mtls.Peer(conn.ConnectionState())
	must(t, err)
	must(t, <-errs)
	return c, s
}
