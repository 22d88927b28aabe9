package inpod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// Info names a pod.
type Info = zds.Info

// Pod is an enrolled pod.
type Pod struct {
	// UID is the pod's metadata.uid.
	UID  string
	Info Info
	// NS is the pod's network namespace. It belongs to the Client and stays open
	// until the pod's proxy was drained.
	NS *netns.NS
}

// Proxy is what runs for one pod.
type Proxy interface {
	// Drain ends the proxy: its listeners close at once, connections may go on
	// until ctx ends and are cut then. It returns when nothing is left. It is
	// called once.
	Drain(ctx context.Context)
}

// Agent is a connection to the node agent. *zds.Conn is one.
type Agent interface {
	SendHello() error
	Receive() (zds.Request, error)
	SendAck(reason error) error
	Close() error
}

// Config makes a Client. Start and one of Socket and Dial are required.
type Config struct {
	// Socket is the path of the agent's ZDS socket.
	Socket string
	// Dial connects to the agent; nil dials Socket.
	Dial func(ctx context.Context) (Agent, error)
	// Start makes the proxy of a pod and returns when it accepts connections. ctx
	// bounds only the start. When it fails, the agent is told, the pod stays
	// without connections, and Start is called again every 5 s until it works or
	// the pod is gone. Start is called on goroutines of its own, never twice at
	// the same time for one pod.
	Start func(ctx context.Context, pod Pod) (Proxy, error)
	// DrainDeadline is how long connections may go on when a pod leaves and when
	// Run ends. Zero means 30 s.
	DrainDeadline time.Duration
	// Readiness is told what is pending: the agent's first list, and each pod
	// whose proxy does not run. Nil: nobody is.
	Readiness *readiness.Ready
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics workload_manager_*; nil: none are kept.
	Registerer prometheus.Registerer
}

// Client keeps the proxies of the node's pods in step with the agent.
type Client struct {
	cfg     Config
	log     *zap.Logger
	metrics *metrics
	state   atomic.Pointer[[]WorkloadState]
}

// New returns a Client that does nothing until Run. It fails when cfg lacks
// what is required.
func New(cfg Config) (*Client, error) {
	if cfg.Start == nil || (cfg.Dial == nil && cfg.Socket == "") {
		return nil, errors.New("inpod: Config needs Start, and Socket or Dial")
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context) (Agent, error) {
			c, err := zds.Dial(ctx, cfg.Socket)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	if cfg.DrainDeadline == 0 {
		cfg.DrainDeadline = defaultDrainDeadline
	}
	if cfg.Readiness == nil {
		cfg.Readiness = readiness.New()
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Client{cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer)}, nil
}

// Run serves the agent until ctx ends, then drains every proxy and returns nil.
// It may be called once.
func (c *Client) Run(ctx context.Context) error {
	m := newManager(c)
	requests := make(chan request)
	var wg sync.WaitGroup
	wg.Go(func() { c.connect(ctx, requests) })
	m.run(ctx, requests)
	wg.Wait()
	m.shutdown()
	return nil
}

// request is one of the agent's, on its way to the manager, or the news of a
// new connection (message nil). reply takes exactly one answer.
type request struct {
	session int
	message zds.Request
	reply   chan error
}

// connect keeps a connection to the agent until ctx ends.
func (c *Client) connect(ctx context.Context, requests chan<- request) {
	pause := backoff.New(reconnectMin, reconnectMax)
	failing := false
	for session := 1; ctx.Err() == nil; session++ {
		synced, err := c.converse(ctx, session, requests)
		if ctx.Err() != nil {
			return
		}
		if synced {
			pause.Reset()
			failing = false
		}
		wait := pause.Next()
		// The first failure is news; that it goes on is not.
		if failing {
			c.log.Debug("no connection to the node agent", zap.Error(err), zap.Duration("retry_in", wait))
		} else {
			c.log.Warn("connection to the node agent lost; proxies go on", zap.Error(err), zap.Duration("retry_in", wait))
			failing = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// converse serves one connection; synced tells whether the agent's list was
// complete once.
func (c *Client) converse(ctx context.Context, session int, requests chan<- request) (synced bool, err error) {
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SendHello(); err != nil {
		return false, err
	}
	ask := func(message zds.Request) (error, bool) {
		r := request{session: session, message: message, reply: make(chan error, 1)}
		select {
		case requests <- r:
		case <-ctx.Done():
			discard(message)
			return nil, false
		}
		select {
		case answer := <-r.reply:
			return answer, true
		case <-ctx.Done():
			return nil, false
		}
	}
	if _, ok := ask(nil); !ok {
		return false, ctx.Err()
	}
	for {
		message, err := conn.Receive()
		var bad *zds.RequestError
		switch {
		case errors.As(err, &bad):
			c.log.Warn("request of the node agent refused", zap.Error(err))
			if err := conn.SendAck(err); err != nil {
				return synced, err
			}
			continue
		case errors.Is(err, io.EOF):
			return synced, errors.New("closed by the node agent")
		case err != nil:
			return synced, err
		}
		if _, keep := message.(*zds.Keep); keep && synced {
			return synced, &zds.ProtocolError{Reason: "keep after the list was complete"}
		}
		answer, ok := ask(message)
		if !ok {
			return synced, ctx.Err()
		}
		if err := conn.SendAck(answer); err != nil {
			return synced, err
		}
		if _, complete := message.(*zds.SnapshotSent); complete {
			if !synced {
				c.log.Info("node agent connected", zap.Int("workloads", len(c.Workloads())))
			}
			synced = true
		}
	}
}

// discard releases what a message holds that nobody took.
func discard(message zds.Request) {
	if add, ok := message.(*zds.Add); ok && add.NS != nil {
		add.NS.Close()
	}
}

// WorkloadState is one enrolled pod, for the configuration dump.
type WorkloadState struct {
	UID  string
	Info Info
	// Up tells that the pod's proxy runs.
	Up bool
	// Error is why it does not, after a failed start.
	Error string
}

// Workloads lists the pods, sorted by UID. It may be called at any time from
// anywhere; the slice must not be changed.
func (c *Client) Workloads() []WorkloadState {
	if p := c.state.Load(); p != nil {
		return *p
	}
	return nil
}

func pendingName(info Info) string {
	return fmt.Sprintf("proxy of %s/%s", info.Namespace, info.Name)
}
