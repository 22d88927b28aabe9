package lease

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/tulle-mesh/tulle/api/lease"
)

// Config says who may count what.
type Config struct {
	// Authorize returns the account behind a stream, as namespace/name, or why it may
	// not have shares. Required.
	Authorize func(ctx context.Context) (account string, err error)
	// Permitted reports whether the account's waypoints count by the policy
	// "namespace/name". Required.
	Permitted func(account, policy string) bool
	// Leading reports whether this process is the one that shares out; nil is always.
	// Who asks another is turned away, and tries again.
	Leading func() bool
	Logger  *zap.Logger // may be nil
}

// Server shares limits out. Run drives it.
type Server struct {
	api.UnimplementedLeasesServer

	cfg Config

	mu        sync.Mutex
	allocator *Allocator
	streams   map[string]*stream
	dirty     chan struct{}
	closed    bool
}

// stream is one replica's.
type stream struct {
	grants chan *api.Grant
	end    context.CancelFunc
}

// NewServer returns a Server that knows nobody.
func NewServer(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Leading == nil {
		cfg.Leading = func() bool { return true }
	}
	return &Server{cfg: cfg, allocator: NewAllocator(), streams: map[string]*stream{}, dirty: make(chan struct{}, 1)}
}

// Run thinks shares over until ctx ends, and then ends all streams.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	led := true
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.closed = true
			for _, st := range s.streams {
				st.end()
			}
			return nil
		case <-ticker.C:
		case <-s.dirty:
			select {
			case <-ctx.Done():
				continue
			case <-time.After(spacing - time.Since(last)):
			}
		}
		last = time.Now()
		leading := s.cfg.Leading()
		s.mu.Lock()
		if !leading {
			// Whoever leads now knows better.
			for _, st := range s.streams {
				st.end()
			}
			if led {
				s.allocator = NewAllocator()
			}
		} else {
			s.tick()
		}
		led = leading
		s.mu.Unlock()
	}
}

// tick sends what changed; the caller holds mu.
func (s *Server) tick() {
	for name, g := range s.allocator.Tick(time.Now()) {
		st := s.streams[name]
		if st == nil {
			continue
		}
		select {
		case st.grants <- g:
		default:
			// It takes nothing: it goes on with what it has, and comes again.
			st.end()
		}
	}
}

func (s *Server) touch() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// Share serves one replica until either side ends it.
func (s *Server) Share(g grpc.BidiStreamingServer[api.Report, api.Grant]) error {
	account, err := s.cfg.Authorize(g.Context())
	if err != nil {
		s.cfg.Logger.Info("stream for shares refused", zap.String("account", account), zap.Error(err))
		if status.Code(err) == codes.Unavailable {
			return err
		}
		return status.Error(codes.PermissionDenied, "this account may not have shares of rate limits")
	}
	if !s.cfg.Leading() {
		return status.Error(codes.Unavailable, "another replica of the control plane shares limits out")
	}
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if first.GetReplica() == "" || len(first.GetReplica()) > 253 {
		return status.Error(codes.InvalidArgument, "replica: the first report names it, in at most 253 bytes")
	}
	name := account + "/" + first.GetReplica()
	ctx, end := context.WithCancel(g.Context())
	defer end()
	st := &stream{grants: make(chan *api.Grant, 64), end: end}
	if err := s.join(account, name, st); err != nil {
		return err
	}
	done := false
	defer func() { s.leave(name, st, done) }()
	permitted := func(rule string) bool {
		for i := len(rule) - 1; i > 0; i-- {
			if rule[i] == '/' {
				return s.cfg.Permitted(account, rule[:i])
			}
		}
		return false
	}
	s.cfg.Logger.Info("replica shares limits", zap.String("replica", name), zap.Int("rules", len(first.GetRules())))
	s.report(name, st, first, permitted)
	sent := make(chan error, 1)
	go func() { sent <- st.send(ctx, g) }()
	received := make(chan error, 1)
	go func() {
		for {
			r, err := g.Recv()
			if err != nil {
				received <- err
				return
			}
			if r.GetLeaving() {
				received <- io.EOF
				return
			}
			s.report(name, st, r, permitted)
		}
	}()
	// Its Recv ends when this returns: gRPC then ends the stream's context.
	select {
	case err = <-received:
		done = errors.Is(err, io.EOF)
		end()
		<-sent
	case err = <-sent:
	}
	if done {
		return nil
	}
	if err == nil || ctx.Err() != nil {
		return status.Error(codes.Unavailable, "the stream is over, come again")
	}
	return err
}

// send sends grants until ctx ends.
func (st *stream) send(ctx context.Context, g grpc.BidiStreamingServer[api.Report, api.Grant]) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case grant := <-st.grants:
			if err := g.Send(grant); err != nil {
				return err
			}
		}
	}
}

func (s *Server) join(account, name string, st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return status.Error(codes.Unavailable, "the control plane is shutting down")
	}
	if old := s.streams[name]; old != nil {
		old.end() // it has come again before its last stream was found to be broken
	} else if of, all, here := s.allocator.known(account, name); !here && (of >= maxOfAccount || all >= maxReplicas) {
		return status.Errorf(codes.ResourceExhausted, "already %d replicas, %d of them of %s", all, of, account)
	}
	s.streams[name] = st
	s.allocator.Join(name, time.Now())
	return nil
}

func (s *Server) leave(name string, st *stream, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[name] != st {
		return
	}
	delete(s.streams, name)
	s.allocator.Leave(name, done, time.Now())
	s.touch()
}

func (s *Server) report(name string, st *stream, r *api.Report, permitted func(string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[name] == st {
		s.allocator.Report(name, r, permitted, time.Now())
		s.touch()
	}
}

// Replicas counts the streams.
func (s *Server) Replicas() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}
