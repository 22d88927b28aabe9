package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs/rotation"
	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/outbound"
)

// The ports that the redirection and the peers use, opened inside each pod.
const (
	outboundPort = 15001
	inboundPort  = 15006
	tunnelPort   = 15008
)

// podWindowBytes is what the receive windows of all of a pod's tunnels may grow by
// together: room for some dozens of fat streams on a path of 10 ms and 10 Gbit/s,
// and the bound of what peers that do not read can make us hold for the pod.
const podWindowBytes = 64 << 20

// minPortPause and maxPortPause space attempts to take the UDP port over.
const (
	minPortPause = 20 * time.Millisecond
	maxPortPause = time.Second
)

// lastOrders is how long after its listeners have closed a pod's proxies take
// requests on tunnels: until the peers have heard that there will be no more, which
// takes a round trip, and a second for a peer that does not answer.
const lastOrders = 1500 * time.Millisecond

// errDeadline cuts connections that outlive a drain.
var errDeadline = errors.New("drain deadline passed")

// podProxy is all that runs for one pod.
type podProxy struct {
	pods     *pods
	pod      inpod.Pod
	log      *zap.Logger
	mesh     *podMesh
	table    *conntrack.Table
	lease    *rotation.Lease
	inbound  *inbound.Proxy
	outbound *outbound.Proxy
	pool     *hbone.Pool
	started  time.Time

	closers []io.Closer // the listeners
	drain   *lifecycle.Drain
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	// accepting are the loops that take connections from the listeners.
	accepting sync.WaitGroup
	ended     sync.Once
}

// start opens the pod's listeners and begins to serve. ctx bounds the start
// only; life ends the proxies.
func (p *pods) start(life context.Context, pod inpod.Pod) (_ *podProxy, err error) {
	id, err := workload.NewIdentity(p.cfg.TrustDomain, pod.Info.Namespace, pod.Info.ServiceAccount)
	if err != nil {
		return nil, fmt.Errorf("identity of pod %s/%s: %w", pod.Info.Namespace, pod.Info.Name, err)
	}
	name := pod.Info.Namespace + "/" + pod.Info.Name
	x := &podProxy{
		pods: p, pod: pod, log: p.log.With(zap.String("pod", name)), started: time.Now(),
		mesh:  p.mesh(pod),
		table: conntrack.New(p.reporter), drain: lifecycle.NewDrain(),
	}
	x.ctx, x.cancel = context.WithCancelCause(life)
	tcp, err := x.listen()
	if err != nil {
		x.cancel(err)
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	x.lease = p.certificates.Acquire(id)
	dialer, budget := inpod.NewDialer(pod.NS), hbone.NewBudget(podWindowBytes)
	x.inbound = inbound.New(inbound.Config{
		Pod: name, Mesh: x.mesh, Dialer: dialer, Table: x.table, Drain: x.drain,
		TLS:         mtls.Server(x.lease, x.lease),
		QUIC:        mtls.Server(x.lease, x.lease, mtls.WithProtocol(mtls.ProtocolH3)),
		Certificate: x.lease, Budget: budget, Identity: id, Baggage: describe,
		HandshakeTimeout: p.cfg.HandshakeTimeout, ConnectTimeout: p.cfg.ConnectTimeout, Logger: x.log,
	})
	x.outbound = outbound.New(x.outboundConfig(name, id, dialer, budget))
	x.serve(tcp)
	return x, nil
}

func (x *podProxy) outboundConfig(name string, id spiffeid.ID, dialer *inpod.Dialer, budget *hbone.Budget) outbound.Config {
	cfg := x.pods.cfg
	protocol := conntrack.HBONE
	tunnels := outbound.Tunnels{
		Dialer: dialer, SVID: x.lease, Bundles: x.lease, Budget: budget,
		ListenPacket: func() (*net.UDPConn, error) { return inpod.ListenPacket(x.pod.NS, 0) },
	}
	if cfg.Carrier == config.CarrierH3 {
		protocol, tunnels.QUIC = conntrack.HBONEQUIC, true
	}
	x.pool = hbone.NewPool(hbone.PoolConfig{Dial: tunnels.Dial, IdleTimeout: cfg.TunnelIdle, DialTimeout: cfg.ConnectTimeout})
	out := outbound.Config{
		UID: x.pod.UID, Pod: name, Mesh: x.mesh, Dialer: dialer, Pool: x.pool, Protocol: protocol,
		Table: x.table, Identity: id, Certificate: x.lease, Baggage: describe,
		ConnectTimeout: cfg.ConnectTimeout, Logger: x.log,
	}
	if !cfg.SameNodeEncrypt {
		out.SameNode = x.pods
	}
	return out
}

// listeners of one pod, by port.
type listeners struct{ outbound, inbound, tunnel []*net.TCPListener }

// listen opens everything or nothing.
func (x *podProxy) listen() (tcp listeners, err error) {
	defer func() {
		if err != nil {
			x.closeListeners()
		}
	}()
	for _, l := range []struct {
		port uint16
		into *[]*net.TCPListener
	}{{outboundPort, &tcp.outbound}, {inboundPort, &tcp.inbound}, {tunnelPort, &tcp.tunnel}} {
		lns, err := inpod.Listen(x.pod.NS, l.port)
		if err != nil {
			return tcp, fmt.Errorf("listen on port %d: %w", l.port, err)
		}
		*l.into = lns
		for _, ln := range lns {
			x.closers = append(x.closers, ln)
		}
	}
	return tcp, nil
}

func (x *podProxy) closeListeners() {
	for _, c := range x.closers {
		_ = c.Close()
	}
}

// serve starts everything that runs for the pod.
func (x *podProxy) serve(tcp listeners) {
	for _, l := range []struct {
		lns   []*net.TCPListener
		serve func(context.Context, *net.TCPConn)
		hold  *lifecycle.Drain
	}{
		{tcp.outbound, x.outbound.Serve, x.drain},
		{tcp.inbound, x.inbound.ServePlaintext, x.drain},
		{tcp.tunnel, x.inbound.ServeTunnel, nil}, // its requests are held, not the tunnel
	} {
		for _, ln := range l.lns {
			x.accepting.Go(func() { acceptAll(x.ctx, x.log, &x.wg, door{ln, l.serve, l.hold}) })
		}
	}
	// Once now, so that peers find it there when the pod counts as started.
	udp, err := inpod.ListenPacket(x.pod.NS, tunnelPort)
	if err != nil {
		x.log.Warn("no tunnels on UDP for now", zap.Uint16("port", tunnelPort), zap.Error(err))
	}
	x.wg.Go(func() {
		if udp == nil {
			udp = x.awaitUDP()
		}
		if udp == nil {
			return
		}
		if err := x.inbound.ServeQUIC(x.ctx, udp); err != nil {
			x.log.Warn("QUIC listener ended", zap.Error(err))
		}
	})
}

// awaitUDP takes the port for tunnels on UDP as soon as it is free: a proxy that
// drains, of this process or another, keeps it while it has QUIC connections.
// Nothing else of the pod waits for that. It returns nil when the pod ends first.
func (x *podProxy) awaitUDP() *net.UDPConn {
	pause := backoff.New(minPortPause, maxPortPause)
	for {
		select {
		case <-time.After(pause.Next()):
		case <-x.drain.Draining():
			return nil
		case <-x.ctx.Done():
			return nil
		}
		if udp, err := inpod.ListenPacket(x.pod.NS, tunnelPort); err == nil {
			x.log.Info("tunnels on UDP are taken now", zap.Uint16("port", tunnelPort))
			return udp
		}
	}
}

// Drain ends the pod's proxies: it takes no new connections but those that were on
// their way, and lets all go on until they end, ctx ends or the drain deadline
// passes, whichever is first. It returns when nothing of the pod is left in the
// process.
func (x *podProxy) Drain(ctx context.Context) {
	x.ended.Do(func() { x.end(ctx) })
}

func (x *podProxy) end(ctx context.Context) {
	patience := x.pods.cfg.DrainDeadline
	if by := x.pods.endBy.Load(); by != nil {
		patience = min(patience, time.Until(*by))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errDeadline)
	defer cancel()
	x.closeListeners()
	x.accepting.Wait()
	goaway := make(chan struct{})
	go func() { defer close(goaway); x.inbound.Drain(ctx) }()
	// What was accepted, and what peers ask for before they have heard, is served.
	select {
	case <-goaway:
	case <-time.After(min(lastOrders, patience/4)):
	case <-ctx.Done():
	}
	left := x.drain.Wait(ctx)
	cut := 0
	if left > 0 {
		cut = x.table.CutAll(errDeadline)
	} else {
		// The last bytes may still be on their way: a tunnel ends when its peer has them.
		<-goaway
	}
	_ = x.pool.Drain(ctx)
	x.cancel(errDeadline)
	<-goaway
	x.wg.Wait()
	x.lease.Release()
	x.log.Info("pod ended", zap.Int("connections_cut", cut), zap.Int("connections_refused", left-cut),
		zap.Duration("served", time.Since(x.started).Round(time.Millisecond)))
}

// addresses of the pod, for the dump.
func (x *podProxy) addresses() []netip.Addr {
	w := x.pods.store.Snapshot().WorkloadByPod(x.pod.Info.Namespace, x.pod.Info.Name)
	if w == nil {
		return nil
	}
	return w.Addresses
}
