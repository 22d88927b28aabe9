package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// patience bounds every wait.
const patience = 20 * time.Second

// nobody connects to nothing: these tests look at choices.
type nobody struct{}

func (nobody) Dial(context.Context, *upstream.Endpoint, upstream.Protocol) (message.Client, error) {
	return nil, errors.New("nobody is there")
}

// world is a Mesh with the resources that a test gives it.
type world struct {
	*mesh.Mesh
	t         *testing.T
	addresses xdsclient.Handler
	store     *state.Store

	mu    sync.Mutex
	asked []string
	given []string // back
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: state.New(state.Config{ClusterID: "Kubernetes"})}
	keys := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(nil)})
	w.Mesh = mesh.New(mesh.Config{
		Store: w.store, Dialer: nobody{}, Namespace: "shop", Pod: "waypoint", Keys: keys, Logger: zaptest.NewLogger(t),
		Want: func(names ...string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.asked = append(w.asked, names...)
		},
		Drop: func(names, resources []string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.given = append(w.given, resources...)
		},
	})
	w.addresses = w.Wanted(w.store.AddressHandler())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		keys.Close()
	})
	return w
}

func key(name string) workload.ServiceKey {
	return workload.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc"}
}

func (w *world) apply(h xdsclient.Handler, name string, m proto.Message) []xdsclient.Rejection {
	w.t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.Apply(xdsclient.Delta{Resources: []xdsclient.Resource{{Name: name, Version: "1", Body: body}}})
}

func (w *world) put(h xdsclient.Handler, name string, m proto.Message) {
	w.t.Helper()
	for _, r := range w.apply(h, name, m) {
		w.t.Fatalf("%s: %v", r.Name, r.Err)
	}
}

// routes puts the service before the waypoint, with a rule that leads to the others.
func (w *world) routes(name string, backends ...string) {
	w.t.Helper()
	s := &api.Service{Namespace: "shop", Hostname: key(name).Hostname, Name: name, Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}}}
	if len(backends) > 0 {
		rule := &api.Rule{}
		for _, b := range backends {
			rule.Backends = append(rule.Backends, &api.Backend{Service: key(b).String(), Port: 80, Weight: 1})
		}
		s.Ports[0].Routes = []*api.RouteTable{{Rules: []*api.Rule{rule}, Matches: []*api.Match{{}}}}
	}
	w.put(w.ServiceHandler(), key(name).String(), s)
}

// pod is a workload as the control plane tells of it.
type pod struct {
	name, address string
	region, zone  string
	services      []string
}

func (w *world) pod(p pod) *apiworkload.Workload {
	out := &apiworkload.Workload{
		Uid: "Kubernetes//Pod/shop/" + p.name, Name: p.name, Namespace: "shop", ServiceAccount: "default", TrustDomain: "cluster.local",
		ClusterId: "Kubernetes", Addresses: [][]byte{netip.MustParseAddr(p.address).AsSlice()}, Services: map[string]*apiworkload.PortList{},
		Locality: &apiworkload.Locality{Region: p.region, Zone: p.zone}, TunnelProtocol: apiworkload.TunnelProtocol_HBONE,
	}
	for _, s := range p.services {
		out.Services[key(s).String()] = &apiworkload.PortList{Ports: []*apiworkload.Port{{ServicePort: 80, TargetPort: 8080}}}
	}
	return out
}

func (w *world) putPod(p pod) []xdsclient.Rejection {
	w.t.Helper()
	out := w.pod(p)
	return w.apply(w.addresses, out.GetUid(), &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: out}})
}

func (w *world) service(name, vip string) []xdsclient.Rejection {
	w.t.Helper()
	return w.apply(w.addresses, key(name).String(), &apiworkload.Address{Type: &apiworkload.Address_Service{Service: &apiworkload.Service{
		Name: name, Namespace: "shop", Hostname: key(name).Hostname, Ports: []*apiworkload.Port{{ServicePort: 80, TargetPort: 8080}},
		Addresses: []*apiworkload.NetworkAddress{{Address: netip.MustParseAddr(vip).AsSlice()}},
	}}})
}

func (w *world) destination(name string) *mesh.Destination {
	w.t.Helper()
	d, err := w.Destination(w.t.Context(), key(name), 80, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// eventually waits for what the goroutine of Run does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// picked are the endpoints that requests go to.
func picked(t *testing.T, d *mesh.Destination) []string {
	t.Helper()
	seen := map[string]bool{}
	for range 200 {
		target, err := d.Pick(upstream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		seen[target.Endpoint().Addr.String()] = true
	}
	var out []string
	for a := range seen {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

func TestLocalityIsTheDestinationsChoice(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.putPod(pod{name: "waypoint", address: "10.0.0.1", region: "east", zone: "a"})
	w.service("web", "10.96.0.1")
	near := pod{name: "near", address: "10.0.1.1", region: "east", zone: "a", services: []string{"web"}}
	zone := pod{name: "zone", address: "10.0.1.2", region: "east", zone: "b", services: []string{"web"}}
	west := pod{name: "west", address: "10.0.1.3", region: "west", zone: "a", services: []string{"web"}}
	north := pod{name: "north", address: "10.0.1.4", region: "north", zone: "a", services: []string{"web"}}
	for _, p := range []pod{near, zone, west, north} {
		w.putPod(p)
	}
	gone := func(names ...string) {
		for i, n := range names {
			names[i] = "Kubernetes//Pod/shop/" + n
		}
		w.addresses.Apply(xdsclient.Delta{Removed: names})
	}
	set := func(l *api.LocalityChoice) {
		w.put(w.DestinationHandler(), key("web").String(), &api.Destination{
			Namespace: "shop", Hostname: key("web").Hostname, Settings: &api.DestinationSettings{Balancing: &api.Balancing{Locality: l}},
		})
	}
	want := func(what string, addresses ...string) {
		t.Helper()
		var got []string
		eventually(t, what, func() bool {
			got = picked(t, w.destination("web"))
			return slices.Equal(got, addresses)
		})
	}
	all := []string{"10.0.1.1:8080", "10.0.1.2:8080", "10.0.1.3:8080", "10.0.1.4:8080"}
	want("without a choice all take part", all...)
	set(&api.LocalityChoice{Failover: []*api.Failover{{From: "east", To: "west"}}})
	want("the own zone", "10.0.1.1:8080")
	gone("near")
	want("the own region", "10.0.1.2:8080")
	gone("zone")
	want("the region to fail over to", "10.0.1.3:8080")
	gone("west")
	want("what is left", "10.0.1.4:8080")
	for _, p := range []pod{near, zone, west} {
		w.putPod(p)
	}
	set(&api.LocalityChoice{FailoverPriority: []string{"topology.kubernetes.io/region"}})
	want("the region by its label", "10.0.1.1:8080", "10.0.1.2:8080")
	set(&api.LocalityChoice{Off: true})
	want("no notice", all...)
}

func TestTargetsAreServicesWorkloadsAndNames(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	other := &api.Service{Namespace: "other", Hostname: key("web").Hostname, Name: "web", Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_TCP}}}
	uid := "Kubernetes//Pod/shop/alone"
	w.put(w.ServiceHandler(), uid, &api.Service{Workload: uid, Ports: []*api.Port{{Port: 8080, Protocol: api.Protocol_HTTP2}}})
	w.service("web", "10.96.0.1")
	w.putPod(pod{name: "alone", address: "10.0.2.1"})

	resolve := func(target, namespace string) (string, uint16, string) {
		s, port, err := w.Resolve(target, namespace)
		if err != nil {
			return "", 0, err.Error()
		}
		return s.Key.String(), port, ""
	}
	for _, c := range []struct {
		target, namespace, want, fault string
		port                           uint16
	}{
		{"10.96.0.1:80", "shop", "shop/web.shop.svc", "", 80},
		{"[::ffff:10.96.0.1]:81", "shop", "shop/web.shop.svc", "", 81},
		{"web.shop.svc:80", "elsewhere", "shop/web.shop.svc", "", 80},
		{"10.0.2.1:9", "", "/" + uid, "", 9},
		{"10.0.2.2:9", "", "", "no service's address, and no workload's", 0},
		{"nobody:80", "", "", "no service \"nobody\"", 0},
		{uid + ":80", "", "", "no service", 0},
		{"web.shop.svc:0", "", "", "not host:port", 0},
		{"web.shop.svc", "", "", "not host:port", 0},
	} {
		got, port, fault := resolve(c.target, c.namespace)
		if got != c.want || port != c.port || !strings.Contains(fault, c.fault) || (fault == "") != (c.fault == "") {
			t.Errorf("%s: %s, %d, %s", c.target, got, port, fault)
		}
	}
	w.put(w.ServiceHandler(), "other/"+key("web").Hostname, other)
	if got, _, _ := resolve("web.shop.svc:80", "other"); got != "other/web.shop.svc" {
		t.Errorf("the client's own: %s", got)
	}
	if _, _, fault := resolve("web.shop.svc:80", "elsewhere"); !strings.Contains(fault, "same name") {
		t.Errorf("two services: %q", fault)
	}

	s := w.Service(workload.ServiceKey{Hostname: uid})
	if s.Port(8080).Protocol != api.Protocol_HTTP2 || s.Port(9).Protocol != api.Protocol_UNKNOWN {
		t.Error("ports of a workload")
	}
	for port, protocol := range map[uint16]upstream.Protocol{8080: upstream.HTTP2, 9: upstream.HTTP1} {
		d, err := w.Destination(t.Context(), s.Key, port, "")
		if err != nil {
			t.Fatal(err)
		}
		target, err := d.Pick(upstream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if e := target.Endpoint(); e.Addr != netip.AddrPortFrom(netip.MustParseAddr("10.0.2.1"), port) || !e.Tunnelled ||
			e.Identity != spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/default") || d.Protocol != protocol {
			t.Errorf("%+v, %v", e, d.Protocol)
		}
	}
}

func TestWhatNobodyLeadsToIsGivenBack(t *testing.T) {
	w := newWorld(t)
	w.routes("web", "one", "two")
	if want := []string{key("one").String(), key("two").String(), key("web").String()}; !slices.Equal(w.asked, want) {
		t.Errorf("asked for %v", w.asked)
	}
	w.service("one", "10.96.0.1")
	w.service("two", "10.96.0.2")
	w.putPod(pod{name: "one", address: "10.0.0.1", services: []string{"one"}})
	w.putPod(pod{name: "both", address: "10.0.0.2", services: []string{"one", "two"}})
	w.putPod(pod{name: "waypoint", address: "10.0.0.3", services: []string{"one"}})
	w.routes("web", "two")
	if want := []string{key("one").String(), "Kubernetes//Pod/shop/one"}; !slices.Equal(w.given, want) {
		t.Errorf("gave back %v", w.given)
	}
	// What was on its way does not come in any more.
	for _, rejected := range [][]xdsclient.Rejection{w.putPod(pod{name: "one", address: "10.0.0.9", services: []string{"one"}}), w.service("one", "10.96.0.1")} {
		if len(rejected) != 1 || !errors.Is(rejected[0].Err, xdsclient.ErrNotWanted) {
			t.Errorf("%v", rejected)
		}
	}
	w.given = nil
	w.put(w.PolicyHandler(), "shop/ask", &api.Policy{
		Namespace: "shop", Name: "ask", Action: api.Action_CUSTOM, ExternalAuth: &api.ExternalAuth{Backend: &api.Backend{Service: key("two").String(), Port: 80}},
	})
	w.ServiceHandler().Apply(xdsclient.Delta{Removed: []string{key("web").String()}})
	if want := []string{key("web").String()}; !slices.Equal(w.given, want) {
		t.Errorf("while a policy asks: %v", w.given)
	}
	w.PolicyHandler().Apply(xdsclient.Delta{Removed: []string{"shop/ask"}})
	if !slices.Contains(w.given, key("two").String()) || !slices.Contains(w.given, "Kubernetes//Pod/shop/both") || slices.Contains(w.given, "Kubernetes//Pod/shop/waypoint") {
		t.Errorf("at the end: %v", w.given)
	}
}

// What the waypoint itself asks for stays, whoever else leads there.
func TestOwnQuestionsAreKept(t *testing.T) {
	w := newWorld(t)
	w.Ask(key("redis").String())
	w.Ask(key("redis").String())
	w.routes("web", "redis")
	w.routes("web")
	if n := len(slices.DeleteFunc(slices.Clone(w.asked), func(name string) bool { return name != key("redis").String() })); n != 1 || len(w.given) > 0 {
		t.Errorf("asked for %v, gave back %v", w.asked, w.given)
	}
	if rejected := w.putPod(pod{name: "redis", address: "10.0.0.1", services: []string{"redis"}}); len(rejected) > 0 {
		t.Errorf("%v", rejected)
	}
}

// An update that changes nothing of TLS leaves the connections.
func TestTheSameTLSStays(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.service("web", "10.96.0.1")
	w.putPod(pod{name: "web", address: "10.0.0.1", services: []string{"web"}})
	set := func(name string, panicPercent uint32) upstream.Securer {
		w.put(w.DestinationHandler(), key("web").String(), &api.Destination{Namespace: "shop", Hostname: key("web").Hostname, Settings: &api.DestinationSettings{
			PanicPercent: panicPercent, Tls: &api.Tls{ServerName: name},
		}})
		target, err := w.destination("web").Pick(upstream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return target.Endpoint().Secure
	}
	first := set("a.example", 0)
	if again := set("a.example", 50); again != first || first == nil {
		t.Error("the same TLS is another one")
	}
	if other := set("b.example", 50); other == first {
		t.Error("another name is the same TLS")
	}
}

func TestBackendsEndWithTheirServices(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.service("web", "10.96.0.1")
	w.putPod(pod{name: "web", address: "10.0.0.1", services: []string{"web"}})
	d := w.destination("web")
	w.addresses.Apply(xdsclient.Delta{Removed: []string{key("web").String()}})
	eventually(t, "the backend stays", func() bool { return len(w.Backends()) == 0 })
	if _, err := d.Pick(upstream.Options{}); err == nil {
		t.Error("the backend still has endpoints")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.Destination(ctx, key("web"), 80, ""); !errors.Is(err, mesh.ErrNoService) {
		t.Errorf("%v", err)
	}
}

func TestTLSOfTheMeshIsNotSpokenInATunnel(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.service("web", "10.96.0.1")
	w.putPod(pod{name: "web", address: "10.0.0.1", services: []string{"web"}})
	outside := w.pod(pod{name: "vm", address: "10.0.0.2", services: []string{"web"}})
	outside.TunnelProtocol = apiworkload.TunnelProtocol_NONE
	w.apply(w.addresses, outside.GetUid(), &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: outside}})
	for _, everywhere := range []bool{false, true} {
		tls := &api.Tls{Insecure: true, Mesh: !everywhere}
		if tls.Mesh {
			tls.Insecure = false
			tls.ServerName = "web"
		}
		w.put(w.DestinationHandler(), key("web").String(), &api.Destination{Namespace: "shop", Hostname: key("web").Hostname, Settings: &api.DestinationSettings{Tls: tls}})
		d := w.destination("web")
		for range 50 {
			target, err := d.Pick(upstream.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if e := target.Endpoint(); (e.Secure != nil) != (everywhere || !e.Tunnelled) {
				t.Fatalf("%v: TLS %v", e, e.Secure != nil)
			}
		}
	}
}

func TestADestinationThatIsNotUnderstoodIsNoPartOfItEither(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.service("web", "10.96.0.1")
	strange := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	}
	for what, spoil := range map[string]func(*api.Destination){
		"nothing":         func(*api.Destination) {},
		"itself":          func(d *api.Destination) { strange(d) },
		"a port":          func(d *api.Destination) { strange(d.Ports[0]) },
		"a subset":        func(d *api.Destination) { strange(d.Subsets[0]) },
		"a subset's port": func(d *api.Destination) { strange(d.Subsets[0].Ports[0]) },
		"another subset":  func(d *api.Destination) { d.Subsets = append(d.Subsets, &api.Subset{Name: "b"}); strange(d.Subsets[1]) },
	} {
		ports := func() []*api.DestinationPort {
			return []*api.DestinationPort{{Port: 80, Settings: &api.DestinationSettings{}}}
		}
		d := &api.Destination{Namespace: "shop", Hostname: key("web").Hostname, Ports: ports(),
			Subsets: []*api.Subset{{Name: "a", Settings: &api.DestinationSettings{}, Ports: ports()}}}
		spoil(d)
		w.put(w.DestinationHandler(), key("web").String(), d)
		for _, subset := range []string{"", "a"} {
			got, err := w.Destination(t.Context(), key("web"), 80, subset)
			if err != nil {
				t.Fatal(err)
			}
			if (got.Fault() != "") != (what != "nothing") {
				t.Errorf("%s, subset %q: fault %q", what, subset, got.Fault())
			}
		}
	}
}

func TestPrioritiesAreTheFirstThatFits(t *testing.T) {
	w := newWorld(t)
	w.routes("web")
	w.service("web", "10.96.0.1")
	w.put(w.DestinationHandler(), key("web").String(), &api.Destination{Namespace: "shop", Hostname: key("web").Hostname, Settings: &api.DestinationSettings{
		Adaptive: &api.Adaptive{Priorities: []*api.PriorityRule{
			{Priority: api.Priority_CRITICAL, Headers: []*api.FieldMatch{{Name: "x-urgent", Kind: &api.FieldMatch_Exact{Exact: "yes"}}}},
			{Priority: api.Priority_LOW, Namespaces: []string{"batch"}},
		}},
	}})
	d := w.destination("web")
	peer := func(namespace string) *request.Peer {
		p, err := request.NewPeer(spiffeid.RequireFromString(fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/x", namespace)))
		if err != nil {
			t.Fatal(err)
		}
		return &p
	}
	urgent := &message.Request{Header: message.Header{{Name: "x-urgent", Value: "yes"}}}
	for _, c := range []struct {
		r         *message.Request
		namespace string
		want      upstream.Priority
	}{{urgent, "batch", upstream.Critical}, {&message.Request{}, "batch", upstream.Low}, {&message.Request{}, "shop", upstream.Normal}} {
		if got := d.Priority(c.r, peer(c.namespace)); got != c.want {
			t.Errorf("%s: %v", c.namespace, got)
		}
	}
}

func TestResourcesUnderAnotherNameAreRefused(t *testing.T) {
	w := newWorld(t)
	for name, rejected := range map[string][]xdsclient.Rejection{
		"service":     w.apply(w.ServiceHandler(), "shop/x", &api.Service{Namespace: "shop", Hostname: "y"}),
		"workload":    w.apply(w.ServiceHandler(), "a", &api.Service{Workload: "b"}),
		"destination": w.apply(w.DestinationHandler(), "shop/x", &api.Destination{Namespace: "shop", Hostname: "y"}),
		"policy":      w.apply(w.PolicyHandler(), "shop/x", &api.Policy{Namespace: "shop", Name: "y"}),
		"both":        w.apply(w.ServiceHandler(), "b", &api.Service{Workload: "b", Hostname: "b"}),
	} {
		if len(rejected) != 1 {
			t.Errorf("%s: %v", name, rejected)
		}
	}
}

func TestRateLimitsEndWhileTheirBackendIsBeingReached(t *testing.T) {
	var m *mesh.Mesh
	dialing := make(chan struct{}, 1)
	limiter := ratelimit.New(ratelimit.Config{Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		dialing <- struct{}{}
		<-ctx.Done()
		m.Ask("shop/redis.shop.svc") // as whoever connects through the mesh does
		return nil, ctx.Err()
	}})
	t.Cleanup(limiter.Close)
	m = mesh.New(mesh.Config{Store: state.New(state.Config{ClusterID: "Kubernetes"}), Dialer: nobody{}, Limiter: limiter, Logger: zaptest.NewLogger(t)})
	body, err := anypb.New(&api.RateLimit{Namespace: "shop", Name: "calls", Backend: &api.RateLimitBackend{
		Kind: &api.RateLimitBackend_Redis{Redis: &api.RedisBackend{Address: "redis.shop.svc:6379"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := m.RateLimitHandler()
	h.Apply(xdsclient.Delta{Resources: []xdsclient.Resource{{Name: "shop/calls", Version: "1", Body: body}}})
	<-dialing
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Apply(xdsclient.Delta{Removed: []string{"shop/calls"}})
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the policy does not end")
	}
}

func TestDestinationsOfOtherNamespacesAreTaken(t *testing.T) {
	w := newWorld(t)
	bank := workload.ServiceKey{Namespace: "pay", Hostname: "bank.pay.svc"}
	w.put(w.ServiceHandler(), bank.String(), &api.Service{Namespace: bank.Namespace, Hostname: bank.Hostname, Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}}})
	w.put(w.addresses, bank.String(), &apiworkload.Address{Type: &apiworkload.Address_Service{Service: &apiworkload.Service{
		Name: "bank", Namespace: bank.Namespace, Hostname: bank.Hostname, Ports: []*apiworkload.Port{{ServicePort: 80, TargetPort: 8080}},
	}}})
	// As the control plane names what is for waypoints of one namespace alone.
	name := bank.String() + "/shop"
	w.put(w.DestinationHandler(), name, &api.Destination{Namespace: bank.Namespace, Hostname: bank.Hostname, Settings: &api.DestinationSettings{Tls: &api.Tls{ServerName: "bank"}}})
	secure := func() bool {
		d, err := w.Destination(t.Context(), bank, 80, "")
		if err != nil {
			t.Fatal(err)
		}
		return d.Secure
	}
	if !secure() {
		t.Error("its TLS is not spoken")
	}
	w.DestinationHandler().Apply(xdsclient.Delta{Removed: []string{name}})
	if secure() {
		t.Error("it holds although it was removed")
	}
	if rejected := w.apply(w.DestinationHandler(), bank.String()+"/other", &api.Destination{Namespace: bank.Namespace, Hostname: bank.Hostname}); len(rejected) != 1 {
		t.Error("what is for another namespace's waypoints is taken")
	}
}
