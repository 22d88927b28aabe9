package variant

import (
	"context"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// hopPort is where the proxies of the baselines listen.
const hopPort = 9000

// Relay is two plain TCP relays, one per node: what two hops cost without
// encryption and framing.
type Relay struct {
	processes
	self string
}

// Name implements Variant.
func (*Relay) Name() string { return "relay" }

// Start implements Variant.
func (r *Relay) Start(_ context.Context, t *topology.Topology) (Running, error) {
	b, err := r.start(t.NodeB, nil, r.self, "relay", at(topology.NodeBAddr, hopPort), at(topology.ServerAddr, load.Port))
	if err != nil {
		return Running{}, err
	}
	a, err := r.start(t.NodeA, nil, r.self, "relay", at(topology.ClientNode, hopPort), at(topology.NodeBAddr, hopPort))
	if err != nil {
		return Running{}, err
	}
	return Running{Addr: at(topology.ClientNode, hopPort), Proxies: []int{a, b}}, nil
}

// RunRelay is the relay's process: it carries connections from listen to
// target with io.Copy, which splices in the kernel, until it is told to end.
func RunRelay(listen, target string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go relayConn(c.(*net.TCPConn), target)
	}
}

func relayConn(near *net.TCPConn, target string) {
	defer near.Close()
	c, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(far, near)
		far.CloseWrite()
	}()
	io.Copy(near, far)
	near.CloseWrite()
	<-done
}
