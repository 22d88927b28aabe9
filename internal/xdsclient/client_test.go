package xdsclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

const address, authorization = xdsclient.AddressType, xdsclient.AuthorizationType

type response = discovery.DeltaDiscoveryResponse

func TestSubscribesToWholeTypesAndAcknowledges(t *testing.T) {
	s := serve(t)
	client, states := run(t, s, nil, address, authorization)
	ses := s.accept()
	for range 2 {
		req := ses.next()
		if req.GetNode().GetId() == "" || len(req.GetResourceNamesSubscribe()) != 0 || len(req.GetInitialResourceVersions()) != 0 || req.GetResponseNonce() != "" {
			t.Errorf("first request %v", req)
		}
	}
	ses.send(&response{TypeUrl: address, Nonce: "n1", Resources: []*discovery.Resource{resource(address, "a", "1")}})
	if ack := ses.next(); ack.GetTypeUrl() != address || ack.GetResponseNonce() != "n1" || ack.GetErrorDetail() != nil || ack.GetNode() != nil {
		t.Errorf("acknowledgement %v", ack)
	}
	if d := states[address].take(t); !d.First || !slices.Equal(names(d), []string{"a@1"}) {
		t.Errorf("delta %v", d)
	}
	select {
	case <-client.Synced():
		t.Fatal("synced before the second type")
	default:
	}
	ses.send(&response{TypeUrl: authorization, Nonce: "n2"})
	select {
	case <-client.Synced():
	case <-time.After(bound):
		t.Fatal("not synced")
	}
	ses.send(&response{TypeUrl: address, Nonce: "n3", RemovedResources: []string{"a"}})
	if d := states[address].take(t); d.First || !slices.Equal(names(d), []string{"-a"}) {
		t.Errorf("second delta %v", d)
	}
}

func TestAReconnectNamesTheVersionsLastAccepted(t *testing.T) {
	s := serve(t)
	_, states := run(t, s, nil, address)
	st := states[address]
	st.reject["bad"], st.reject["b"] = errTest, nil
	ses := s.accept()
	ses.next()
	ses.send(&response{TypeUrl: address, Nonce: "1", Resources: []*discovery.Resource{
		resource(address, "a", "1"), resource(address, "b", "1"), resource(address, "gone", "1"), resource(address, "bad", "1")}})
	st.take(t)
	if nack := ses.next(); nack.GetErrorDetail().GetMessage() != "bad: refused by the test" || nack.GetResponseNonce() != "1" {
		t.Errorf("refusal %v", nack)
	}
	st.mu.Lock()
	st.reject["b"] = errTest
	st.mu.Unlock()
	ses.send(&response{TypeUrl: address, Nonce: "2", Resources: []*discovery.Resource{resource(address, "a", "2"), resource(address, "b", "2")}, RemovedResources: []string{"gone"}})
	st.take(t)
	ses.next()
	ses.end <- status.Error(codes.Unavailable, "restart")

	// b stays at the version in force, so that the newer one comes again.
	if req := s.accept().next(); !equal(req.GetInitialResourceVersions(), map[string]string{"a": "2", "b": "1"}) || req.GetNode() == nil {
		t.Errorf("request after the reconnect %v", req)
	}
}

func TestTheGoodOfABatchStandsBesideTheBad(t *testing.T) {
	s := serve(t)
	client, states := run(t, s, nil, address)
	ses := s.accept()
	ses.next()
	long := strings.Repeat("x", 3000)
	ses.send(&response{TypeUrl: address, Nonce: "1",
		Resources: []*discovery.Resource{
			resource(address, "good", "1"), resource(address, "", "1"), resource(address, "good", "2"), resource(address, long, "1"),
			resource("type.googleapis.com/other", "other", "1"), {Name: "empty", Version: "1"},
			{Name: "alias", Version: "1", Aliases: []string{long}, Resource: resource(address, "", "").Resource}, nil,
		},
		RemovedResources: []string{"good", "", long, "old", "old"},
	})
	if d := states[address].take(t); !slices.Equal(names(d), []string{"-old", "good@1"}) {
		t.Errorf("delta %v", names(d))
	}
	msg := ses.next().GetErrorDetail().GetMessage()
	for _, want := range []string{"resource without a name", "good: twice in one response", "at most 1024", `other: body of type "type.googleapis.com/other"`, `empty: body of type ""`, "alias of 3000 bytes"} {
		if !strings.Contains(msg, want) {
			t.Errorf("%q is not in the refusal %.500s", want, msg)
		}
	}
	if st := client.Status().Types[address]; st.Resources != 1 || st.LastRejection == "" || !st.Synced {
		t.Errorf("status %+v", st)
	}
}

func TestARefusalsTextIsBounded(t *testing.T) {
	s := serve(t)
	_, states := run(t, s, nil, address)
	ses := s.accept()
	ses.next()
	r := &response{TypeUrl: address, Nonce: "1"}
	for i := range 5000 {
		name := fmt.Sprintf("r%d", i)
		states[address].reject[name] = errTest
		r.Resources = append(r.Resources, resource(address, name, "1"))
	}
	ses.send(r)
	if msg := ses.next().GetErrorDetail().GetMessage(); len(msg) > 5000 || !strings.Contains(msg, " more") {
		t.Errorf("%d bytes: %.100s", len(msg), msg)
	}
}

func TestAHostileServer(t *testing.T) {
	for name, act := range map[string]func(*session){
		"ends at once":          func(s *session) { s.end <- nil },
		"ends with an error":    func(s *session) { s.end <- status.Error(codes.Internal, "x") },
		"sends an unknown type": func(s *session) { s.send(&response{TypeUrl: "what", Nonce: "1"}); s.end <- nil },
		"sends no nonce":        func(s *session) { s.send(&response{TypeUrl: address}); s.end <- nil },
		"sends more than is taken": func(s *session) {
			r := resource(address, "huge", "1")
			r.Resource.Value = make([]byte, 201<<20)
			s.stream.Send(&response{TypeUrl: address, Nonce: "1", Resources: []*discovery.Resource{r}})
		},
		"answers a type twice with one nonce": func(s *session) {
			s.send(&response{TypeUrl: address, Nonce: "1"})
			s.send(&response{TypeUrl: address, Nonce: "1"})
			s.end <- nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			_, states := run(t, s, nil, address)
			ses := s.accept()
			ses.next()
			act(ses)
			// Whatever it did, the client comes again and takes a good answer.
			ses = s.accept()
			ses.next()
			ses.send(&response{TypeUrl: address, Nonce: "2", Resources: []*discovery.Resource{resource(address, "a", "1")}})
			for {
				if d := states[address].take(t); slices.Equal(names(d), []string{"a@1"}) {
					break
				}
			}
		})
	}
}

func TestGarbageInsteadOfAMessageEndsTheStreamOnly(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	accepted := make(chan struct{}, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\nnot h2"))
			conn.Close()
			select {
			case accepted <- struct{}{}:
			default:
			}
		}
	}()
	s := serve(t)
	bad := 0
	dial := func(ctx context.Context) (*grpc.ClientConn, error) {
		if bad++; bad > 3 {
			return s.dial(ctx)
		}
		return grpc.NewClient("passthrough:///"+lis.Addr().String(), insecureOption())
	}
	reg := prometheus.NewRegistry()
	st := newState()
	client, err := xdsclient.New(xdsclient.Config{Dial: dial, Node: &core.Node{}, Handlers: map[string]xdsclient.Handler{address: st},
		MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, Logger: zap.NewNop(), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); client.Run(ctx) }()
	ses := s.accept()
	ses.next()
	ses.send(&response{TypeUrl: address, Nonce: "1"})
	st.take(t)
	cancel()
	<-ended
	lis.Close()
	<-done
	if got := counter(t, reg, "istio_xds_connection_terminations_total"); got != 3 {
		t.Errorf("terminations = %v, want 3", got)
	}
	if got := counter(t, reg, "istio_xds_message_total"); got != 1 {
		t.Errorf("messages = %v, want 1", got)
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestTokensAreReadAnewAndNeverTravelInTheClear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	creds := xdsclient.TokenCredentials{File: path, ClusterID: "east", Headers: map[string]string{"x": "y"}}
	if !creds.RequireTransportSecurity() {
		t.Error("a token would travel without TLS")
	}
	if _, err := creds.GetRequestMetadata(context.Background()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file: %v", err)
	}
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(" "+want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		md, err := creds.GetRequestMetadata(context.Background())
		if err != nil || md["authorization"] != "Bearer "+want || md["clusterid"] != "east" || md["x"] != "y" {
			t.Errorf("metadata %v, %v", md, err)
		}
	}
	for name, content := range map[string]string{"empty": " \n", "large": strings.Repeat("x", 20_000), "two words": "a b", "two lines": "a\nb"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if md, err := creds.GetRequestMetadata(context.Background()); err == nil {
			t.Errorf("%s token taken: %v", name, md)
		}
	}
}

func TestNodesSayWhoTheyAre(t *testing.T) {
	node, err := xdsclient.NewNode(xdsclient.Identity{Name: "ztunnel-x", Namespace: "istio-system", Node: "n1", InstanceIP: "10.0.0.1",
		Environ: []string{"ISTIO_META_GENERATOR=event", `ISTIO_METAJSON_LABELS={"a":1}`, "PATH=/bin", "ISTIO_META_=x"}})
	if err != nil {
		t.Fatal(err)
	}
	if node.Id != "ztunnel~10.0.0.1~ztunnel-x.istio-system~istio-system.svc.cluster.local" {
		t.Errorf("id %q", node.Id)
	}
	meta := node.Metadata.AsMap()
	if meta["NAME"] != "ztunnel-x" || meta["NAMESPACE"] != "istio-system" || meta["NODE_NAME"] != "n1" || meta["INSTANCE_IPS"] != "10.0.0.1" ||
		meta["GENERATOR"] != "event" || fmt.Sprint(meta["LABELS"]) != "map[a:1]" || len(meta) != 6 {
		t.Errorf("metadata %v", meta)
	}
	if _, err := xdsclient.NewNode(xdsclient.Identity{Environ: []string{"ISTIO_METAJSON_X={"}}); err == nil || !strings.Contains(err.Error(), "ISTIO_METAJSON_X") {
		t.Errorf("bad JSON: %v", err)
	}
}

// A type may be asked for by name, also after a reconnect.
func TestSubscribesToNames(t *testing.T) {
	s := serve(t)
	client, err := xdsclient.New(xdsclient.Config{
		Dial: s.dial, Node: &core.Node{}, Handlers: map[string]xdsclient.Handler{address: newState(), authorization: newState()},
		Names: map[string][]string{authorization: {"waypoint/shop/w"}}, MinBackoff: time.Millisecond, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for range 2 {
		ses := s.accept()
		for range 2 {
			req := ses.next()
			want := []string{"waypoint/shop/w"}
			if req.GetTypeUrl() == address {
				want = nil
			}
			if !slices.Equal(req.GetResourceNamesSubscribe(), want) {
				t.Errorf("%s: subscribed to %v", req.GetTypeUrl(), req.GetResourceNamesSubscribe())
			}
		}
		ses.end <- errors.New("again")
	}
}

// Of a type on demand nothing is asked for until somebody does, and then after each
// reconnect too.
func TestSubscribesOnDemand(t *testing.T) {
	s := serve(t)
	client, err := xdsclient.New(xdsclient.Config{
		Dial: s.dial, Node: &core.Node{}, Handlers: map[string]xdsclient.Handler{address: newState(), authorization: newState()},
		OnDemand: []string{address}, MinBackoff: time.Millisecond, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	defer func() { cancel(); <-done }()
	ses := s.accept()
	if req := ses.next(); req.GetTypeUrl() != authorization {
		t.Errorf("asked for %s", req.GetTypeUrl())
	}
	ses.send(&response{TypeUrl: authorization, Nonce: "1"})
	if ack := ses.next(); ack.GetResponseNonce() != "1" {
		t.Errorf("acknowledgement %v", ack)
	}
	select {
	case <-client.Synced():
	case <-time.After(bound):
		t.Fatal("not synced")
	}
	client.Subscribe(address, "a", "b", "a")
	if req := ses.next(); req.GetTypeUrl() != address || !slices.Equal(req.GetResourceNamesSubscribe(), []string{"a", "b"}) {
		t.Errorf("asked for %v", req)
	}
	client.Subscribe(address, "b", "c")
	if req := ses.next(); !slices.Equal(req.GetResourceNamesSubscribe(), []string{"c"}) {
		t.Errorf("asked for %v", req)
	}
	ses.end <- errors.New("again")
	ses = s.accept()
	asked := map[string][]string{}
	for range 2 {
		req := ses.next()
		asked[req.GetTypeUrl()] = req.GetResourceNamesSubscribe()
	}
	if !slices.Equal(asked[address], []string{"a", "b", "c"}) {
		t.Errorf("after the reconnect: %v", asked)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := xdsclient.Config{Dial: serve(t).dial, Node: &core.Node{}, Handlers: map[string]xdsclient.Handler{address: newState()}, Logger: zap.NewNop()}
	for name, spoil := range map[string]func(*xdsclient.Config){
		"no dial":      func(c *xdsclient.Config) { c.Dial = nil },
		"no node":      func(c *xdsclient.Config) { c.Node = nil },
		"no handlers":  func(c *xdsclient.Config) { c.Handlers = nil },
		"nil handler":  func(c *xdsclient.Config) { c.Handlers = map[string]xdsclient.Handler{address: nil} },
		"no logger":    func(c *xdsclient.Config) { c.Logger = nil },
		"stray type":   func(c *xdsclient.Config) { c.OnDemand = []string{authorization} },
		"stray names":  func(c *xdsclient.Config) { c.Names = map[string][]string{authorization: {"x"}} },
		"bad back-off": func(c *xdsclient.Config) { c.MinBackoff, c.MaxBackoff = time.Second, time.Millisecond },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := xdsclient.New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What is given back is removed from its Handler, on this stream and the next, and what
// of it was still on its way is passed over without a complaint.
func TestNamesAreGivenBack(t *testing.T) {
	s := serve(t)
	addresses := newState()
	client, err := xdsclient.New(xdsclient.Config{
		Dial: s.dial, Node: &core.Node{}, Handlers: map[string]xdsclient.Handler{address: addresses},
		OnDemand: []string{address}, MinBackoff: time.Millisecond, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Subscribe(address, "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	defer func() { cancel(); <-done }()
	ses := s.accept()
	ses.next()
	ses.send(&response{TypeUrl: address, Nonce: "1", Resources: []*discovery.Resource{
		resource(address, "a", "1"), resource(address, "a's pod", "1"), resource(address, "b", "1"),
	}})
	addresses.take(t)
	ses.next()
	client.Unsubscribe(address, []string{"a"}, []string{"a", "a's pod"})
	if req := ses.next(); !slices.Equal(req.GetResourceNamesUnsubscribe(), []string{"a"}) || len(req.GetResourceNamesSubscribe()) > 0 {
		t.Errorf("%v", req)
	}
	if d := addresses.take(t); !slices.Equal(names(d), []string{"-a", "-a's pod"}) {
		t.Errorf("%v", names(d))
	}
	addresses.mu.Lock()
	addresses.reject["a's pod"] = xdsclient.ErrNotWanted
	addresses.mu.Unlock()
	ses.send(&response{TypeUrl: address, Nonce: "2", Resources: []*discovery.Resource{resource(address, "a's pod", "2")}})
	addresses.take(t)
	if ack := ses.next(); ack.GetErrorDetail() != nil || ack.GetResponseNonce() != "2" {
		t.Errorf("%v", ack)
	}
	client.Subscribe(address, "a")
	if req := ses.next(); !slices.Equal(req.GetResourceNamesSubscribe(), []string{"a"}) {
		t.Errorf("%v", req)
	}
	ses.end <- errors.New("again")
	if req := s.accept().next(); !slices.Equal(req.GetResourceNamesSubscribe(), []string{"b", "a"}) || len(req.GetInitialResourceVersions()) != 1 {
		t.Errorf("%v", req)
	}
}
