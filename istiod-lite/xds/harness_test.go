package xds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

// stream is a client's end of a delta stream held in memory, so that tests run
// in virtual time. Its window is one response: a client that does not read
// blocks Send, as a full flow-control window does.
type stream struct {
	t         *testing.T
	ctx       context.Context
	cancel    context.CancelFunc
	requests  chan *discovery.DeltaDiscoveryRequest
	responses chan *discovery.DeltaDiscoveryResponse
	ended     chan error
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*discovery.DeltaDiscoveryRequest, error) {
	select {
	case r, ok := <-s.requests:
		if !ok {
			return nil, io.EOF
		}
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// SendMsg decodes what would go on the wire.
func (s *stream) SendMsg(m any) error {
	encoded, err := xds.Codec().Marshal(m)
	if err != nil {
		return err
	}
	r := &discovery.DeltaDiscoveryResponse{}
	if err := proto.Unmarshal(encoded.Materialize(), r); err != nil {
		return err
	}
	select {
	case s.responses <- r:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *stream) SetHeader(metadata.MD) error                  { return nil }
func (s *stream) SendHeader(metadata.MD) error                 { return nil }
func (s *stream) SetTrailer(metadata.MD)                       {}
func (s *stream) Send(*discovery.DeltaDiscoveryResponse) error { return errors.New("not used") }
func (s *stream) RecvMsg(any) error                            { return errors.New("not used") }

// connect opens a stream; it ends with the test.
func connect(t *testing.T, server *xds.Server) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{t: t, ctx: ctx, cancel: cancel, requests: make(chan *discovery.DeltaDiscoveryRequest, 16),
		responses: make(chan *discovery.DeltaDiscoveryResponse), ended: make(chan error, 1)}
	go func() {
		err := server.DeltaAggregatedResources(s)
		cancel() // gRPC ends the context of a stream whose handler has returned
		s.ended <- err
	}()
	return s
}

func (s *stream) send(r *discovery.DeltaDiscoveryRequest) {
	if r.TypeUrl == "" {
		r.TypeUrl = snapshot.AddressType
	}
	s.requests <- r
}

// next returns the response that comes once everything is at rest.
func (s *stream) next() *discovery.DeltaDiscoveryResponse {
	s.t.Helper()
	synctest.Wait()
	select {
	case r := <-s.responses:
		return r
	default:
		s.t.Fatal("no response")
		return nil
	}
}

func (s *stream) nothing() {
	s.t.Helper()
	synctest.Wait()
	select {
	case r := <-s.responses:
		s.t.Fatalf("unexpected response %s", summary(r))
	default:
	}
}

func (s *stream) ack(r *discovery.DeltaDiscoveryResponse) {
	s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

func (s *stream) nack(r *discovery.DeltaDiscoveryResponse, message string) {
	s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: &rpcstatus.Status{Code: 3, Message: message}})
}

// close ends the stream as a client does that hangs up.
func (s *stream) close() error {
	s.cancel()
	synctest.Wait()
	return <-s.ended
}

// summary lists the names of a response, removals with a minus.
func summary(r *discovery.DeltaDiscoveryResponse) []string {
	names := []string{}
	for _, res := range r.Resources {
		names = append(names, res.Name)
	}
	for _, n := range r.RemovedResources {
		names = append(names, "-"+n)
	}
	slices.Sort(names)
	return names
}

func expect(t *testing.T, r *discovery.DeltaDiscoveryResponse, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := summary(r); !slices.Equal(got, names) {
		t.Errorf("response %v, want %v", got, names)
	}
}

// mesh publishes states made of workloads name → address.
type mesh struct {
	t        *testing.T
	server   *xds.Server
	current  *snapshot.Snapshot
	members  map[string]string // workload → service
	policies []string          // further resources, of the other type
	// waypoint services and policies with the alias that each has.
	services, waypointPolicies, authentications map[string]string
}

func newServer(t *testing.T, change func(*xds.Config)) (*xds.Server, *mesh) {
	t.Helper()
	cfg := xds.Config{Authorize: func(context.Context) (string, error) { return "istio-system/ztunnel", nil }, Logger: zap.NewNop()}
	if change != nil {
		change(&cfg)
	}
	server, err := xds.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server, &mesh{t: t, server: server, members: map[string]string{}}
}

func uid(name string) string { return "Kubernetes//Pod/shop/" + name }

func (m *mesh) publish(workloads map[string]string) {
	m.t.Helper()
	out := &translate.Mesh{Addresses: map[string]*translate.Resource{}, Authorizations: map[string]*translate.Resource{}}
	for name, ip := range workloads {
		r := &translate.Resource{Name: uid(name), Aliases: []string{"/" + ip},
			Body: &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: &apiworkload.Workload{Uid: uid(name), Hostname: ip}}}}
		if svc := m.members[name]; svc != "" {
			r.Services = []string{svc}
			out.Addresses[svc] = &translate.Resource{Name: svc, Aliases: []string{"/vip-" + svc},
				Body: &apiworkload.Address{Type: &apiworkload.Address_Service{Service: &apiworkload.Service{Hostname: svc}}}}
		}
		out.Addresses[r.Name] = r
	}
	for _, name := range m.policies {
		out.Authorizations[name] = &translate.Resource{Name: name, Body: &apisecurity.Authorization{Name: name}}
	}
	out.WaypointServices, out.WaypointPolicies = map[string]*translate.Resource{}, map[string]*translate.Resource{}
	for name, alias := range m.services {
		out.WaypointServices[name] = &translate.Resource{Name: name, Aliases: []string{alias}, Body: &apiwaypoint.Service{Name: name, Hostname: alias}}
	}
	for name, alias := range m.waypointPolicies {
		out.WaypointPolicies[name] = &translate.Resource{Name: name, Aliases: []string{alias}, Body: &apiwaypoint.Policy{Name: name}}
	}
	out.WaypointAuthentications = map[string]*translate.Resource{}
	for name, alias := range m.authentications {
		out.WaypointAuthentications[name] = &translate.Resource{Name: name, Aliases: []string{alias}, Body: &apiwaypoint.Authentication{Name: name}}
	}
	next, change, err := snapshot.Next(m.current, out)
	if err != nil {
		m.t.Fatal(err)
	}
	m.current = next
	m.server.Publish(next, change, time.Now())
}

func many(n int, ip string) map[string]string {
	w := make(map[string]string, n)
	for i := range n {
		w[fmt.Sprintf("p%d", i)] = fmt.Sprintf("%s.%d", ip, i)
	}
	return w
}
