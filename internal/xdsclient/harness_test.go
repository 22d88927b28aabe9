package xdsclient_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

const bound = 20 * time.Second

// server is a control plane whose every answer the test writes. It speaks the
// real protocol over memory.
type server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	t       *testing.T
	lis     *bufconn.Listener
	grpc    *grpc.Server
	streams chan *session
}

// session is one stream as the server sees it.
type session struct {
	t        *testing.T
	stream   grpc.BidiStreamingServer[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
	requests chan *discovery.DeltaDiscoveryRequest
	end      chan error
}

func (s *server) DeltaAggregatedResources(stream grpc.BidiStreamingServer[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]) error {
	ses := &session{t: s.t, stream: stream, requests: make(chan *discovery.DeltaDiscoveryRequest, 64), end: make(chan error, 1)}
	select {
	case s.streams <- ses:
	case <-stream.Context().Done():
		return nil
	}
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				return
			}
			ses.requests <- req
		}
	}()
	select {
	case err := <-ses.end:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, lis: bufconn.Listen(1 << 20), streams: make(chan *session, 64)}
	s.grpc = grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	discovery.RegisterAggregatedDiscoveryServiceServer(s.grpc, s)
	done := make(chan struct{})
	go func() { defer close(done); s.grpc.Serve(s.lis) }()
	t.Cleanup(func() { s.grpc.Stop(); <-done })
	return s
}

func (s *server) dial(context.Context) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.lis.DialContext(ctx) }))
}

func (s *server) accept() *session {
	s.t.Helper()
	select {
	case ses := <-s.streams:
		return ses
	case <-time.After(bound):
		s.t.Fatal("no stream came")
		return nil
	}
}

func (s *session) next() *discovery.DeltaDiscoveryRequest {
	s.t.Helper()
	select {
	case r := <-s.requests:
		return r
	case <-time.After(bound):
		s.t.Fatal("no request came")
		return nil
	}
}

func (s *session) send(r *discovery.DeltaDiscoveryResponse) {
	s.t.Helper()
	if err := s.stream.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

// state is a handler that keeps what it is given.
type state struct {
	mu     sync.Mutex
	deltas []xdsclient.Delta
	reject map[string]error
	wake   chan struct{}
}

func newState() *state { return &state{reject: map[string]error{}, wake: make(chan struct{}, 64)} }

func (s *state) Apply(d xdsclient.Delta) (rejections []xdsclient.Rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Resources, d.Removed = slices.Clone(d.Resources), slices.Clone(d.Removed)
	s.deltas = append(s.deltas, d)
	for _, r := range d.Resources {
		if err := s.reject[r.Name]; err != nil {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: err})
		}
	}
	s.wake <- struct{}{}
	return rejections
}

// take returns the next delta.
func (s *state) take(t *testing.T) xdsclient.Delta {
	t.Helper()
	select {
	case <-s.wake:
	case <-time.After(bound):
		t.Fatal("no delta came")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deltas[0]
	s.deltas = s.deltas[1:]
	return d
}

func names(d xdsclient.Delta) []string {
	out := []string{}
	for _, r := range d.Resources {
		out = append(out, r.Name+"@"+r.Version)
	}
	for _, n := range d.Removed {
		out = append(out, "-"+n)
	}
	slices.Sort(out)
	return out
}

func resource(url, name, version string) *discovery.Resource {
	return &discovery.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: url, Value: []byte{1}}}
}

// run starts a client of s with one state for each type.
func run(t *testing.T, s *server, reg prometheus.Registerer, urls ...string) (*xdsclient.Client, map[string]*state) {
	t.Helper()
	states, handlers := map[string]*state{}, map[string]xdsclient.Handler{}
	for _, url := range urls {
		states[url] = newState()
		handlers[url] = states[url]
	}
	client, err := xdsclient.New(xdsclient.Config{
		Dial: s.dial, Node: &core.Node{Id: "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local"}, Handlers: handlers,
		MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, Logger: zap.NewNop(), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(bound):
			t.Error("Run did not end with its context")
		}
	})
	return client, states
}

func equal(a, b map[string]string) bool { return maps.Equal(a, b) }

var errTest = errors.New("refused by the test")

func insecureOption() grpc.DialOption {
	return grpc.WithTransportCredentials(insecure.NewCredentials())
}
