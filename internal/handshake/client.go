package handshake

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

// Client does the handshake of the dialling side on conn, which it owns. The peer has
// to prove one of the expected identities. The error is an *Error.
func Client(ctx context.Context, conn net.Conn, svid x509svid.Source, bundles x509bundle.Source, expected []spiffeid.ID) (*tls.Conn, error) {
	secure := tls.Client(hbone.WrapConn(conn), mtls.Client(svid, bundles, expected))
	if err := shake(ctx, secure); err != nil {
		_ = conn.Close()
		return nil, &Error{Err: err}
	}
	return secure, nil
}

// ExpiresAt is when the first certificate of a connection, the own one included,
// does.
func ExpiresAt(cs tls.ConnectionState, own x509svid.Source) time.Time {
	at := mtls.NotAfter(cs)
	if svid, err := own.GetX509SVID(); err == nil {
		// The certificate may have been renewed since the handshake, a moment ago: the
		// peer then closes a little before this.
		if t := svid.Certificates[0].NotAfter; at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}
