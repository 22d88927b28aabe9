package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// tunnels are the servers of the two carriers.
type tunnels struct {
	h2 hbone.Server
	h3 *h3.Server
}

func (t *tunnels) init(p *Proxy) {
	t.h2.Handler, t.h2.Budget = p.handler(conntrack.HBONE), p.cfg.Budget
	t.h3 = h3.NewServer(h3.ServerConfig{
		Handler: p.handler(conntrack.HBONEQUIC),
		Attach: func(cs tls.ConnectionState, _ hbone.Conn) (any, time.Time, error) {
			who, err := handshake.Identify(cs)
			return who, who.Expires, err
		},
		Logger: p.log,
	})
}

// ServeTunnel serves one connection to 15008 until it ends. It owns conn.
func (p *Proxy) ServeTunnel(ctx context.Context, conn *net.TCPConn) {
	received, source := time.Now(), addrPort(conn.RemoteAddr())
	secure, who, err := p.gate.Accept(ctx, conn, source.Addr())
	if err == nil {
		err = p.tunnels.h2.ServeConn(ctx, secure, who)
		if err == nil || errors.Is(err, hbone.ErrServerDraining) {
			return
		}
		// The requests on it have had their log lines.
		p.log.Debug("tunnel ended: " + err.Error())
		return
	}
	// In order, and not by a reset, which could overtake the alert that tells why.
	_ = conn.Close()
	p.cfg.Table.Fail(conntrack.Connection{
		Direction: conntrack.Inbound, Protocol: conntrack.HBONE,
		Src: source, TunnelDst: addrPort(conn.LocalAddr()), Opened: received,
	}, err)
}

// ServeQUIC serves the tunnels that come on udp until ctx ends or the proxy is
// drained. It owns udp. Packets that come before the pod's first certificate wait
// in the socket, and their senders repeat them.
func (p *Proxy) ServeQUIC(ctx context.Context, udp net.PacketConn) error {
	if err := p.cfg.Certificate.Ready(ctx); err != nil {
		_ = udp.Close()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return p.tunnels.h3.Serve(ctx, udp, p.cfg.QUIC)
}

// Drain asks the peers of all tunnels to open no more streams, and waits until
// the tunnels have ended; when ctx ends first, it breaks them. Tunnels whose
// handshake is under way are taken, for a moment. What peers ask for until they
// have heard of it is served as long as Config.Drain has not begun.
func (p *Proxy) Drain(ctx context.Context) {
	settled, cancel := context.WithTimeout(ctx, lastHandshakes)
	p.gate.Settle(settled)
	cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.tunnels.h2.Drain(ctx) })
	wg.Go(func() { _ = p.tunnels.h3.Drain(ctx) })
	wg.Wait()
}
