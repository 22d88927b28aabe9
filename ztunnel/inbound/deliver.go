package inbound

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/relay"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// Local is a connection from another pod of this process.
type Local struct {
	// Source is the client, Identity the identity that this process holds a valid
	// certificate for on the client's behalf.
	Source   netip.AddrPort
	Identity spiffeid.ID
	// Target is the application's address.
	Target netip.AddrPort
	// Host is the service that the client dialled, if any.
	Host string
}

// Deliver is the door for pods of this process: the same decision as for a
// tunnel, and then the bytes are spliced from client to application without
// leaving the kernel. It connects to the application and returns run, which
// carries client until both ends are done, or the error that a tunnel's client
// would have got as a status. run must be called; it owns client and returns
// the cause as relay.Join does. Sent counts the client's bytes.
func (p *Proxy) Deliver(ctx context.Context, l Local) (run func(ctx context.Context, client *net.TCPConn, counters *relay.Counters) error, err error) {
	release, ok := p.cfg.Drain.Hold()
	if !ok {
		return nil, &Refusal{Status: 503, Reason: "pod " + p.cfg.Pod, Err: errDraining}
	}
	c, permit, err := p.decide(ctx, request{
		protocol: conntrack.Local, source: l.Source, identity: l.Identity, target: l.Target,
		host: l.Host, received: time.Now(),
	})
	var app *net.TCPConn
	if err == nil {
		app, err = p.connect(ctx, permit, &c)
	}
	if err != nil {
		release()
		p.cfg.Table.Fail(c, err)
		return nil, err
	}
	return func(ctx context.Context, client *net.TCPConn, counters *relay.Counters) error {
		defer release()
		ctx, cut := context.WithCancelCause(ctx)
		defer cut(nil)
		live := p.cfg.Table.OpenMirror(c, cut, counters)
		p.recheck(live)
		err := relay.Join(ctx, client, app, counters)
		live.Close(err)
		return err
	}, nil
}

// Identity is the pod's own.
func (p *Proxy) Identity() spiffeid.ID { return p.cfg.Identity }
