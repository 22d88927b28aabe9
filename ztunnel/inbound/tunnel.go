package inbound

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// handler answers the CONNECT requests of one carrier.
func (p *Proxy) handler(protocol conntrack.Protocol) hbone.Handler {
	return func(ctx context.Context, r *hbone.ServerRequest) {
		release, ok := p.cfg.Drain.Hold()
		if !ok {
			_ = r.Refuse(503)
			return
		}
		defer release()
		p.connectRequest(ctx, r, protocol)
	}
}

func (p *Proxy) connectRequest(ctx context.Context, r *hbone.ServerRequest, protocol conntrack.Protocol) {
	who, _ := r.Conn.Value.(handshake.Peer)
	req := request{
		protocol: protocol, source: r.Conn.Remote, identity: who.ID, tunnel: r.Conn.Local,
		host: forwardedHost(r.Forwarded), received: time.Now(),
	}
	c := conntrack.Connection{
		Direction: conntrack.Inbound, Protocol: protocol, Src: req.source, TunnelDst: req.tunnel,
		SrcIdentity: who.ID, Opened: req.received,
	}
	var permit authz.Permit
	err := checkRequest(r, who)
	if err == nil {
		req.target, err = parseAuthority(r.Authority)
	}
	if err == nil {
		c, permit, err = p.decide(ctx, req)
	}
	var app *net.TCPConn
	if err == nil {
		app, err = p.connect(ctx, permit, &c)
	}
	if err != nil {
		_ = r.Refuse(status(err))
		p.cfg.Table.Fail(c, err)
		return
	}
	answer := hbone.Response{Status: 200}
	if p.cfg.Baggage != nil {
		answer.Baggage = p.cfg.Baggage(c.DstWorkload)
	}
	stream, err := r.Accept(answer)
	if err != nil {
		_ = app.Close()
		p.cfg.Table.Fail(c, fmt.Errorf("answer the tunnel's request: %w", err))
		return
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	live := p.open(c, cut)
	live.Close(stream.Join(ctx, app, live.Counters()))
}

// checkRequest looks at what does not depend on the pod.
func checkRequest(r *hbone.ServerRequest, who handshake.Peer) error {
	if r.Method != "CONNECT" {
		return &Refusal{Status: 400, Reason: fmt.Sprintf("method %q, want CONNECT", clip(r.Method))}
	}
	if who.ID.IsZero() {
		return &Refusal{Status: 401, Reason: "the tunnel's peer has no identity"}
	}
	if !who.Expires.IsZero() && time.Now().After(who.Expires) {
		return &Refusal{Status: 401, Reason: fmt.Sprintf("the certificate of %s expired at %s", who.ID, who.Expires.UTC().Format(time.RFC3339))}
	}
	return nil
}
