package outbound

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

// Tunnels dials the tunnels of one pod, inside its namespace and with its
// certificate.
type Tunnels struct {
	Dialer  Dialer
	SVID    x509svid.Source
	Bundles x509bundle.Source
	// Budget bounds what the tunnels' receive windows may grow by together; nil
	// gives each tunnel one of its own.
	Budget *hbone.Budget
	// QUIC dials HTTP/3 instead of HTTP/2 on TLS; ListenPacket then opens a UDP
	// socket inside the pod for each tunnel.
	QUIC         bool
	ListenPacket func() (*net.UDPConn, error)
}

// Dial opens the tunnel of key: the DialFunc of the pod's pool.
func (t Tunnels) Dial(ctx context.Context, key hbone.Key) (hbone.Tunnel, error) {
	expected, err := splitPeers(key.Peers)
	if err != nil {
		return nil, err
	}
	if t.QUIC {
		return t.dialQUIC(ctx, key.Destination, expected)
	}
	return t.dialTLS(ctx, key.Destination, expected)
}

func (t Tunnels) dialTLS(ctx context.Context, dst netip.AddrPort, expected []spiffeid.ID) (hbone.Tunnel, error) {
	conn, err := t.Dialer.DialTCP(ctx, netip.Addr{}, dst)
	if err != nil {
		return nil, err
	}
	secure, err := handshake.Client(ctx, conn, t.SVID, t.Bundles, expected)
	if err != nil {
		return nil, err
	}
	tunnel, err := hbone.NewClient(secure, hbone.ClientConfig{
		ExpiresAt: handshake.ExpiresAt(secure.ConnectionState(), t.SVID), Budget: t.Budget,
	})
	if err != nil {
		return nil, err
	}
	return tunnel, nil
}

func (t Tunnels) dialQUIC(ctx context.Context, dst netip.AddrPort, expected []spiffeid.ID) (hbone.Tunnel, error) {
	udp, err := t.ListenPacket()
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	cfg := mtls.Client(t.SVID, t.Bundles, expected, mtls.WithProtocol(mtls.ProtocolH3))
	tunnel, err := h3.Dial(ctx, udp, net.UDPAddrFromAddrPort(dst), cfg, h3.ClientConfig{
		ExpiresAt: func(cs tls.ConnectionState) time.Time { return handshake.ExpiresAt(cs, t.SVID) },
	})
	if err != nil {
		return nil, &handshake.Error{Err: err}
	}
	return tunnel, nil
}
