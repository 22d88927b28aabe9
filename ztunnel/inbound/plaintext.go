package inbound

import (
	"context"
	"net"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/internal/sockopt"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// ServePlaintext brings one connection that was redirected to 15006 to the
// application, and returns when it has ended. It owns conn.
func (p *Proxy) ServePlaintext(ctx context.Context, conn *net.TCPConn) {
	received := time.Now()
	source := addrPort(conn.RemoteAddr())
	target, err := sockopt.OriginalDst(conn)
	if err == nil && target == addrPort(conn.LocalAddr()) {
		err = &Refusal{Reason: "the connection was made to 15006 itself, not redirected to it"}
	}
	c := conntrack.Connection{
		Direction: conntrack.Inbound, Protocol: conntrack.TCP,
		Src: source, OriginalDst: target, ActualDst: target, Opened: received,
	}
	var permit authz.Permit
	if err == nil {
		c, permit, err = p.decide(ctx, request{
			protocol: conntrack.TCP, source: source, target: target, received: received,
		})
	}
	var app *net.TCPConn
	if err == nil {
		app, err = p.connect(ctx, permit, &c)
	}
	if err != nil {
		relay.Reset(conn)
		p.cfg.Table.Fail(c, err)
		return
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	live := p.open(c, cut)
	live.Close(relay.Join(ctx, app, conn, live.Counters()))
}
