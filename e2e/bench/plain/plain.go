package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // on Config.Debug
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/baggage"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/memory"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/report"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Port is a port of the service that is measured.
type Port struct {
	// Listen is where its clients connect, Endpoint where the application is.
	Listen   string         `json:"listen"`
	Endpoint netip.AddrPort `json:"endpoint"`
	// HTTP2 clients speak that version by prior knowledge.
	HTTP2 bool `json:"http2"`
	// EndpointHTTP2 says that the application does.
	EndpointHTTP2 bool `json:"endpointHTTP2"`
}

// Config is what one process serves.
type Config struct {
	Ports []Port `json:"ports"`
	// Routes is how many rules each port's table has. Rule i takes what is below
	// RoutePath(i).
	Routes int `json:"routes"`
	// JWKS are the keys of Issuer, whose tokens are checked; empty looks at none.
	JWKS string `json:"jwks"`
	// RateLimit puts a limit by client in force that is never reached.
	RateLimit bool `json:"rateLimit"`
	// Debug is where net/http/pprof serves; empty nowhere.
	Debug string `json:"debug"`
}

// Issuer of the tokens.
const Issuer = "https://issuer.example"

// RoutePath is the prefix that rule i takes.
func RoutePath(i int) string { return fmt.Sprintf("/api/v1/service-%04d", i) }

const namespace = "bench"

var (
	waypointID = spiffeid.RequireFromString("spiffe://cluster.local/ns/bench/sa/waypoint")
	clientID   = spiffeid.RequireFromString("spiffe://cluster.local/ns/bench/sa/client")
)

// The limits of time of waypoint/app, which cost what they cost there.
const (
	headTimeout  = 30 * time.Second
	idleTimeout  = time.Hour
	stallTimeout = 5 * time.Minute
)

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	defer memory.Floor(memory.DefaultFloor)()
	log := zap.NewNop()
	keys := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(nil), Log: log})
	defer keys.Close()
	store := state.New(state.Config{})
	m := mesh.New(mesh.Config{Store: store, Dialer: dialer{}, Namespace: namespace, Pod: "waypoint", Keys: keys, Logger: log})
	if err := fill(store, m, cfg); err != nil {
		return err
	}
	tracer := trace.NewTracer()
	reporter, err := report.New(report.Config{Store: store, Registerer: prometheus.NewRegistry(), Output: io.Discard, Levels: warnings{}, Tracer: tracer})
	if err != nil {
		return err
	}
	defer reporter.Close()
	f := forward.New(forward.Config{Mesh: m, Identity: waypointID, Report: reporter.Report, Opened: reporter.Opened, Tracer: tracer, Logger: log})
	defer f.Close()

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = m.Run(ctx) })
	peer, err := request.NewPeer(clientID)
	if err != nil {
		return err
	}
	s := &server{report: reporter, peer: peer,
		http1: &http1.Server{Handler: f.Serve, Config: http1.ServerConfig{HeadTimeout: headTimeout, IdleTimeout: idleTimeout, StallTimeout: stallTimeout}},
		http2: &http2.Server{Handler: f.Serve, Config: http2.ServerConfig{HeadTimeout: headTimeout, IdleTimeout: idleTimeout, StallTimeout: stallTimeout}},
	}
	if cfg.Debug != "" {
		ln, err := net.Listen("tcp", cfg.Debug)
		if err != nil {
			return err
		}
		debug := &http.Server{}
		wg.Go(func() { _ = debug.Serve(ln) })
		context.AfterFunc(ctx, func() { _ = debug.Close() })
	}
	for i, p := range cfg.Ports {
		ln, err := net.Listen("tcp", p.Listen)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = ln.Close() })
		wg.Go(func() { s.serve(ctx, ln, p, servicePort(i)) })
	}
	<-ctx.Done()
	return nil
}

// servicePort numbers the service's ports.
func servicePort(i int) uint16 { return uint16(8000 + i) }

var serviceKey = workload.ServiceKey{Namespace: namespace, Hostname: "web.bench.svc.cluster.local"}

// server hands connections to the codecs, as waypoint/app does with those of tunnels.
type server struct {
	report *report.Reporter
	peer   request.Peer
	http1  *http1.Server
	http2  *http2.Server
}

// warnings writes access lines of what failed alone, as the proxies beside it do: all is
// counted.
type warnings struct{}

// Enabled implements report.Levels.
func (warnings) Enabled(_ string, l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (s *server) serve(ctx context.Context, ln net.Listener, p Port, number uint16) {
	var wg sync.WaitGroup
	defer wg.Wait()
	local := ln.Addr().(*net.TCPAddr).AddrPort()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		client := &forward.Client{
			Identity: clientID, Peer: s.peer, Source: conn.RemoteAddr().(*net.TCPAddr).AddrPort(), Workload: "client",
			Destination: local, Service: serviceKey, Port: number,
		}
		client.Memo = s.report.Remember(client, baggage.Baggage{WorkloadName: client.Workload})
		wg.Go(func() {
			ctx := forward.WithClient(ctx, client)
			if p.HTTP2 {
				_ = s.http2.Serve(ctx, conn)
			} else {
				_ = s.http1.Serve(ctx, conn)
			}
		})
	}
}

// dialer connects to endpoints by TCP, as to those outside the mesh.
type dialer struct{}

// Dial implements upstream.Dialer.
func (dialer) Dial(ctx context.Context, to *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr.String())
	if err != nil {
		return nil, err
	}
	if p == upstream.HTTP2 {
		return http2.NewClient(conn, http2.ClientConfig{})
	}
	return http1.NewClient(conn, http1.ClientConfig{})
}

// fill tells the mesh what the control plane would.
func fill(store *state.Store, m *mesh.Mesh, cfg Config) error {
	service := &apiworkload.Service{Name: "web", Namespace: namespace, Hostname: serviceKey.Hostname}
	routes := &api.Service{Namespace: namespace, Hostname: serviceKey.Hostname, Name: "web"}
	ports := &apiworkload.PortList{}
	var at netip.Addr
	for i, p := range cfg.Ports {
		app, protocol := apiworkload.AppProtocol_HTTP11, api.Protocol_HTTP1
		if p.EndpointHTTP2 {
			app, protocol = apiworkload.AppProtocol_HTTP2, api.Protocol_HTTP2
		}
		number := uint32(servicePort(i))
		service.Ports = append(service.Ports, &apiworkload.Port{ServicePort: number, AppProtocol: app})
		ports.Ports = append(ports.Ports, &apiworkload.Port{ServicePort: number, TargetPort: uint32(p.Endpoint.Port()), AppProtocol: app})
		routes.Ports = append(routes.Ports, &api.Port{Port: number, Protocol: protocol, Routes: []*api.RouteTable{table(cfg.Routes, number, p.EndpointHTTP2)}})
		at = p.Endpoint.Addr()
	}
	const uid = "Kubernetes//Pod/bench/web-0"
	pod := &apiworkload.Workload{
		Uid: uid, Name: "web-0", Namespace: namespace, Addresses: [][]byte{at.AsSlice()},
		Services: map[string]*apiworkload.PortList{serviceKey.String(): ports},
	}
	if cfg.JWKS != "" {
		a := &api.Authentication{Namespace: namespace, Name: "tokens", Rules: []*api.TokenRule{{Issuer: Issuer, Keys: &api.TokenRule_Jwks{Jwks: cfg.JWKS}}}}
		name := namespace + "/tokens"
		routes.Authentications = append(routes.Authentications, name)
		if err := put(m.AuthenticationHandler(), map[string]proto.Message{name: a}); err != nil {
			return err
		}
	}
	if cfg.RateLimit {
		name := namespace + "/enough"
		routes.RateLimits = append(routes.RateLimits, name)
		limit := &api.RateLimit{Namespace: namespace, Name: "enough", Rules: []*api.RateLimitRule{{
			Name: "by-client", Local: true, Key: []*api.RateLimitKey{{Kind: &api.RateLimitKey_Identity{Identity: true}}},
			Limits: []*api.RateLimitAmount{{Requests: 1e9, Unit: durationpb.New(time.Second)}},
		}}}
		if err := put(m.RateLimitHandler(), map[string]proto.Message{name: limit}); err != nil {
			return err
		}
	}
	if err := put(store.AddressHandler(), map[string]proto.Message{
		serviceKey.String(): &apiworkload.Address{Type: &apiworkload.Address_Service{Service: service}},
		uid:                 &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: pod}},
	}); err != nil {
		return err
	}
	return put(m.ServiceHandler(), map[string]proto.Message{serviceKey.String(): routes})
}

// Method is what is called where the application speaks HTTP/2, which is gRPC's.
const Method = "/grpc.testing.BenchmarkService/UnaryCall"

// table has n rules, each for a path of its own; the first of gRPC's is Method's.
func table(n int, port uint32, grpc bool) *api.RouteTable {
	t := &api.RouteTable{}
	for i := range n {
		t.Rules = append(t.Rules, &api.Rule{
			Ref:      &api.RouteRef{Kind: "HTTPRoute", Namespace: namespace, Name: fmt.Sprintf("web-%04d", i), Rule: "0"},
			Backends: []*api.Backend{{Service: serviceKey.String(), Port: port, Weight: 1}},
		})
		path := &api.PathMatch{Kind: &api.PathMatch_Prefix{Prefix: RoutePath(i)}}
		if grpc && i == 0 {
			path.Kind = &api.PathMatch_Exact{Exact: Method}
		}
		t.Matches = append(t.Matches, &api.Match{Rule: uint32(i), Path: path})
	}
	return t
}

func put(h xdsclient.Handler, resources map[string]proto.Message) error {
	var d xdsclient.Delta
	for name, m := range resources {
		body, err := anypb.New(m)
		if err != nil {
			return err
		}
		d.Resources = append(d.Resources, xdsclient.Resource{Name: name, Version: "1", Body: body})
	}
	var errs []error
	for _, r := range h.Apply(d) {
		errs = append(errs, fmt.Errorf("%s: %w", r.Name, r.Err))
	}
	return errors.Join(errs...)
}
