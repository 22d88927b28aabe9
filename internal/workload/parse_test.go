package workload_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/baggage"
	"github.com/tulle-mesh/tulle/internal/workload"
)

func fullWorkload() *api.Workload {
	return &api.Workload{
		Uid: "east//Pod/shop/web-0", Name: "web-0", Namespace: "shop",
		Addresses: [][]byte{{10, 0, 0, 1}, netip.MustParseAddr("fd00::1").AsSlice(), netip.MustParseAddr("::ffff:10.0.0.2").AsSlice()},
		Hostname:  "web-0.shop", Network: "net-1", TunnelProtocol: api.TunnelProtocol_HBONE,
		TrustDomain: "example.org", ServiceAccount: "web",
		Waypoint: &api.GatewayAddress{Destination: &api.GatewayAddress_Hostname{
			Hostname: &api.NamespacedHostname{Namespace: "shop", Hostname: "wp.shop.svc"}}},
		NetworkGateway: &api.GatewayAddress{Destination: &api.GatewayAddress_Address{
			Address: &api.NetworkAddress{Network: "net-2", Address: []byte{192, 0, 2, 1}, Length: proto.Uint32(32)}}, HboneMtlsPort: 15443},
		Node: "node-1", CanonicalName: "web", CanonicalRevision: "v2", WorkloadType: api.WorkloadType_CRONJOB, WorkloadName: "web",
		NativeTunnel:      true,
		ApplicationTunnel: &api.ApplicationTunnel{Protocol: api.ApplicationTunnel_PROXY, Port: 15088},
		Services: map[string]*api.PortList{"shop/web.shop.svc": {Ports: []*api.Port{
			{ServicePort: 80, TargetPort: 8080, AppProtocol: api.AppProtocol_HTTP2}, {ServicePort: 81}}}},
		AuthorizationPolicies: []string{"shop/p"}, Status: api.WorkloadStatus_UNHEALTHY, ClusterId: "east",
		Locality:    &api.Locality{Region: "eu", Zone: "eu-a", Subzone: "rack"},
		NetworkMode: api.NetworkMode_HOST_NETWORK, Capacity: wrapperspb.UInt32(7),
		Extensions: []*api.Extension{{Name: "unheard-of"}},
	}
}

func fullService() *api.Service {
	return &api.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc",
		Addresses: []*api.NetworkAddress{
			{Address: []byte{10, 96, 0, 1}},
			{Network: "net-1", Address: []byte{10, 97, 1, 2}, Length: proto.Uint32(16)},
			{Address: netip.MustParseAddr("fd00::1").AsSlice(), Length: proto.Uint32(128)},
			{Address: netip.MustParseAddr("::ffff:10.98.0.0").AsSlice(), Length: proto.Uint32(112)},
		},
		Ports:           []*api.Port{{ServicePort: 80, TargetPort: 8080}},
		SubjectAltNames: []string{"spiffe://example.org/ns/shop/sa/web"},
		Waypoint: &api.GatewayAddress{Destination: &api.GatewayAddress_Address{
			Address: &api.NetworkAddress{Address: []byte{10, 96, 0, 9}}}},
		LoadBalancing: &api.LoadBalancing{
			RoutingPreference: []api.LoadBalancing_Scope{api.LoadBalancing_NETWORK, api.LoadBalancing_NODE},
			Mode:              api.LoadBalancing_STRICT, HealthPolicy: api.LoadBalancing_ALLOW_ALL},
		IpFamilies: api.IPFamilies_DUAL, Canonical: true, IngressUseWaypoint: true, Visibility: api.Service_NAMESPACE,
		WeightedWaypoints: []*api.WeightedWaypoint{{Weight: 5, Destination: &api.GatewayAddress{Destination: &api.GatewayAddress_Hostname{
			Hostname: &api.NamespacedHostname{Namespace: "shop", Hostname: "canary.shop.svc"}}}}},
	}
}

func ofWorkload(w *api.Workload) *api.Address {
	return &api.Address{Type: &api.Address_Workload{Workload: w}}
}

func ofService(s *api.Service) *api.Address {
	return &api.Address{Type: &api.Address_Service{Service: s}}
}

var compare = cmp.Options{
	cmpopts.IgnoreUnexported(workload.Workload{}),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b spiffeid.ID) bool { return a == b }),
}

func TestEveryFieldOfAWorkload(t *testing.T) {
	got, svc, err := workload.FromProto(ofWorkload(fullWorkload()))
	if err != nil || svc != nil {
		t.Fatal(svc, err)
	}
	want := &workload.Workload{
		UID: "east//Pod/shop/web-0", Name: "web-0", Namespace: "shop", ServiceAccount: "web", TrustDomain: "example.org",
		Hostname: "web-0.shop", Network: "net-1", Node: "node-1", ClusterID: "east",
		CanonicalName: "web", CanonicalRevision: "v2", WorkloadName: "web", Type: workload.CronJob,
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2")},
		Protocol:  workload.HBONE, NativeTunnel: true,
		Services: map[workload.ServiceKey][]workload.Port{{Namespace: "shop", Hostname: "web.shop.svc"}: {
			{Service: 80, Target: 8080, App: workload.AppHTTP2}, {Service: 81}}},
		AuthorizationPolicies: []string{"shop/p"}, HostNetwork: true,
		Locality: workload.Locality{Region: "eu", Zone: "eu-a", Subzone: "rack"}, Capacity: 7,
		Waypoint:          &workload.GatewayAddress{Hostname: workload.ServiceKey{Namespace: "shop", Hostname: "wp.shop.svc"}, Port: 15008},
		NetworkGateway:    &workload.GatewayAddress{Network: "net-2", Addr: netip.MustParseAddr("192.0.2.1"), Port: 15443},
		ApplicationTunnel: &workload.ApplicationTunnel{Proxy: true, Port: 15088},
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Error(d)
	}
	if id := got.Identity().String(); id != "spiffe://example.org/ns/shop/sa/web" {
		t.Errorf("identity %s", id)
	}
	wantBaggage := baggage.Baggage{Cluster: "east", Namespace: "shop", WorkloadKind: "cronjob", WorkloadName: "web",
		ServiceName: "web", ServiceVersion: "v2", Region: "eu", Zone: "eu-a"}
	if got.Baggage() != wantBaggage {
		t.Errorf("baggage %+v", got.Baggage())
	}
}

func TestEveryFieldOfAService(t *testing.T) {
	w, got, err := workload.FromProto(ofService(fullService()))
	if err != nil || w != nil {
		t.Fatal(w, err)
	}
	want := &workload.Service{
		Name: "web", Namespace: "shop", Hostname: "web.shop.svc",
		VIPs: []workload.NetworkAddress{
			{Prefix: netip.MustParsePrefix("10.96.0.1/32")}, {Network: "net-1", Prefix: netip.MustParsePrefix("10.97.0.0/16")},
			{Prefix: netip.MustParsePrefix("fd00::1/128")}, {Prefix: netip.MustParsePrefix("10.98.0.0/16")},
		},
		Ports:             []workload.Port{{Service: 80, Target: 8080}},
		SubjectAltNames:   []spiffeid.ID{spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/web")},
		Waypoint:          &workload.GatewayAddress{Addr: netip.MustParseAddr("10.96.0.9"), Port: 15008},
		WeightedWaypoints: []workload.WeightedWaypoint{{GatewayAddress: workload.GatewayAddress{Hostname: workload.ServiceKey{Namespace: "shop", Hostname: "canary.shop.svc"}, Port: 15008}, Weight: 5}},
		LoadBalancing:     workload.LoadBalancing{Preference: []workload.Scope{workload.ScopeNetwork, workload.ScopeNode}, Mode: workload.ModeStrict, AllowUnhealthy: true},
		IPFamilies:        workload.FamilyDual, Canonical: true, IngressUseWaypoint: true, NamespaceOnly: true,
	}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Error(d)
	}
}

func TestDefaults(t *testing.T) {
	w, _, err := workload.FromProto(ofWorkload(&api.Workload{Uid: "Kubernetes//Pod/shop/a", Namespace: "shop"}))
	if err != nil {
		t.Fatal(err)
	}
	want := &workload.Workload{UID: "Kubernetes//Pod/shop/a", Namespace: "shop", ServiceAccount: "default",
		TrustDomain: "cluster.local", ClusterID: "Kubernetes", Healthy: true, Capacity: 1}
	if d := cmp.Diff(want, w, compare); d != "" {
		t.Error(d)
	}
	if id := w.Identity().String(); id != "spiffe://cluster.local/ns/shop/sa/default" {
		t.Errorf("identity %s", id)
	}
	if !w.IsPod() || workload.PodUID("", "shop", "a") != w.UID {
		t.Error("not taken for a pod of the default cluster")
	}
}

func TestErrorsNameTheField(t *testing.T) {
	type W = *api.Workload
	for field, change := range map[string]func(W){
		"uid":                                    func(w W) { w.Uid = "" },
		"uid ":                                   func(w W) { w.Uid = "ns/name" },
		"uid  ":                                  func(w W) { w.Uid = "a//b/\n" },
		"uid   ":                                 func(w W) { w.Uid = strings.Repeat("a/", 2000) },
		"name":                                   func(w W) { w.Name = "a\x00b" },
		"namespace":                              func(w W) { w.Namespace = "" },
		"namespace ":                             func(w W) { w.Namespace = "a/b" },
		"service_account":                        func(w W) { w.ServiceAccount = "a b" },
		"trust_domain":                           func(w W) { w.TrustDomain = "UPPER" },
		"node":                                   func(w W) { w.Node = strings.Repeat("n", 254) },
		"network":                                func(w W) { w.Network = "a\x00" },
		"locality.zone":                          func(w W) { w.Locality.Zone = "\xff" },
		"addresses[1]":                           func(w W) { w.Addresses[1] = []byte{1, 2, 3} },
		"addresses[0]":                           func(w W) { w.Addresses[0] = []byte{0, 0, 0, 0} },
		"addresses":                              func(w W) { w.Addresses = make([][]byte, 65) },
		"tunnel_protocol":                        func(w W) { w.TunnelProtocol = 3 },
		"workload_type":                          func(w W) { w.WorkloadType = 9 },
		"status":                                 func(w W) { w.Status = 2 },
		"network_mode":                           func(w W) { w.NetworkMode = -1 },
		"application_tunnel.protocol":            func(w W) { w.ApplicationTunnel.Protocol = 2 },
		"application_tunnel.port":                func(w W) { w.ApplicationTunnel.Port = 65536 },
		"waypoint.destination":                   func(w W) { w.Waypoint.Destination = nil },
		"waypoint.hostname.hostname":             func(w W) { w.Waypoint.GetHostname().Hostname = "" },
		"network_gateway.hbone_mtls_port":        func(w W) { w.NetworkGateway.HboneMtlsPort = 70000 },
		"network_gateway.address.address":        func(w W) { w.NetworkGateway.GetAddress().Address = nil },
		"network_gateway.address.length":         func(w W) { w.NetworkGateway.GetAddress().Length = proto.Uint32(24) },
		"services[nonsense]":                     func(w W) { w.Services["nonsense"] = nil },
		"services[a/b/c]":                        func(w W) { w.Services = map[string]*api.PortList{"a/b/c": nil} },
		"services[shop/x].ports[0].service_port": func(w W) { w.Services = ports("shop/x", 0, 1, 0) },
		"services[shop/x].ports[0].target_port":  func(w W) { w.Services = ports("shop/x", 1, 65536, 0) },
		"services[shop/x].ports[0].app_protocol": func(w W) { w.Services = ports("shop/x", 1, 1, 6) },
		"authorization_policies[1]":              func(w W) { w.AuthorizationPolicies = []string{"a/b", ""} },
	} {
		w := fullWorkload()
		change(w)
		check(t, strings.TrimSpace(field), ofWorkload(w))
	}
	type S = *api.Service
	for field, change := range map[string]func(S){
		"namespace":                            func(s S) { s.Namespace = "" },
		"hostname":                             func(s S) { s.Hostname = "" },
		"hostname ":                            func(s S) { s.Hostname = "a/b" },
		"addresses[0].address":                 func(s S) { s.Addresses[0].Address = nil },
		"addresses[1].length":                  func(s S) { s.Addresses[1].Length = proto.Uint32(33) },
		"addresses[2].length":                  func(s S) { s.Addresses[2].Length = proto.Uint32(1 << 31) },
		"addresses[3].length":                  func(s S) { s.Addresses[3].Length = proto.Uint32(95) },
		"addresses[1].network":                 func(s S) { s.Addresses[1].Network = "\n" },
		"ports[0].service_port":                func(s S) { s.Ports[0].ServicePort = 0 },
		"ports":                                func(s S) { s.Ports = make([]*api.Port, 4097) },
		"subject_alt_names[0]":                 func(s S) { s.SubjectAltNames[0] = "web" },
		"waypoint.address.address":             func(s S) { s.Waypoint.GetAddress().Address = []byte{1} },
		"load_balancing.mode":                  func(s S) { s.LoadBalancing.Mode = 4 },
		"load_balancing.health_policy":         func(s S) { s.LoadBalancing.HealthPolicy = 2 },
		"load_balancing.routing_preference[1]": func(s S) { s.LoadBalancing.RoutingPreference[1] = 7 },
		"load_balancing.routing_preference":    func(s S) { s.LoadBalancing.RoutingPreference = make([]api.LoadBalancing_Scope, 17) },
		"ip_families":                          func(s S) { s.IpFamilies = 4 },
		"visibility":                           func(s S) { s.Visibility = 2 },
		"weighted_waypoints[0].destination":    func(s S) { s.WeightedWaypoints[0].Destination = nil },
	} {
		s := fullService()
		change(s)
		check(t, strings.TrimSpace(field), ofService(s))
	}
	check(t, "type", &api.Address{})
}

func ports(service string, servicePort, target uint32, app api.AppProtocol) map[string]*api.PortList {
	return map[string]*api.PortList{service: {Ports: []*api.Port{{ServicePort: servicePort, TargetPort: target, AppProtocol: app}}}}
}

func check(t *testing.T, field string, a *api.Address) {
	t.Helper()
	w, s, err := workload.FromProto(a)
	var fe *workload.FieldError
	switch {
	case err == nil:
		t.Errorf("%s: accepted", field)
	case w != nil || s != nil:
		t.Errorf("%s: an error and a value", field)
	case !errors.As(err, &fe) || fe.Field != field:
		t.Errorf("%s: error is %q", field, err)
	case len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x00\n"):
		t.Errorf("%s: error is not fit for a log: %q", field, err)
	}
}

func TestAddressOfAFamily(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	both := &workload.Workload{Addresses: []netip.Addr{v6, v4}}
	if both.Address(v4) != v4 || both.Address(v6) != v6 {
		t.Error("not the address of the family asked for")
	}
	if one := (&workload.Workload{Addresses: []netip.Addr{v6}}); one.Address(v4) != v6 {
		t.Error("not the only address")
	}
	if (&workload.Workload{}).Address(v4).IsValid() {
		t.Error("an address out of nothing")
	}
}

func TestPreferredOrdersAlike(t *testing.T) {
	entry := &workload.Workload{UID: "c/networking.istio.io/WorkloadEntry/shop/a"}
	member := &workload.Workload{UID: "c/networking.istio.io/WorkloadEntry/shop/b", Protocol: workload.HBONE}
	pod := &workload.Workload{UID: "c//Pod/shop/a"}
	meshPod := &workload.Workload{UID: "c//Pod/shop/b", Protocol: workload.HBONE}
	meshPod2 := &workload.Workload{UID: "c//Pod/shop/c", Protocol: workload.HBONE}
	order := []*workload.Workload{meshPod, meshPod2, pod, member, entry}
	for i, a := range order {
		for j, b := range order {
			if got := workload.Preferred(a, b); got != (i < j) {
				t.Errorf("Preferred(%s, %s) = %v", a.UID, b.UID, got)
			}
		}
	}
}

func TestIdentityOfAnUnparsedWorkload(t *testing.T) {
	w := &workload.Workload{Namespace: "shop"}
	if id := w.Identity().String(); id != "spiffe://cluster.local/ns/shop/sa/default" {
		t.Errorf("identity %s", id)
	}
	if id := (&workload.Workload{Namespace: "a/b"}).Identity(); !id.IsZero() {
		t.Errorf("identity %s", id)
	}
}

func FuzzFromProto(f *testing.F) {
	for _, a := range []*api.Address{ofWorkload(fullWorkload()), ofService(fullService())} {
		b, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		for i := range b {
			f.Add(b[:i])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { parse(t, b) })
}

// parse checks what must hold of any value that FromProto accepts.
func parse(t *testing.T, b []byte) {
	var a api.Address
	if proto.Unmarshal(b, &a) != nil {
		return
	}
	w, s, err := workload.FromProto(&a)
	switch {
	case err != nil:
		if w != nil || s != nil {
			t.Fatal("an error and a value")
		}
	case w != nil:
		if s != nil || w.Identity().IsZero() || w.Namespace == "" || strings.Count(w.UID, "/") < 2 {
			t.Fatalf("accepted %+v", w)
		}
		for _, addr := range w.Addresses {
			if !addr.IsValid() || addr.Is4In6() {
				t.Fatalf("address %s", addr)
			}
		}
		if b := w.Baggage().String(); b != "" {
			if _, err := baggage.Parse(b); err != nil {
				t.Fatalf("its baggage is refused: %v", err)
			}
		}
	case s != nil:
		if key, ok := workload.ParseServiceKey(s.Key().String()); !ok || key != s.Key() {
			t.Fatalf("key %s became %s", s.Key(), key)
		}
		for _, v := range s.VIPs {
			if !v.Prefix.IsValid() || v.Prefix != v.Prefix.Masked() {
				t.Fatalf("prefix %s", v.Prefix)
			}
		}
	default:
		t.Fatal("neither value nor error")
	}
}

func TestTruncatedResources(t *testing.T) {
	for _, a := range []*api.Address{ofWorkload(fullWorkload()), ofService(fullService())} {
		b, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			parse(t, b[:n])
		}
	}
}

func BenchmarkFromProto(b *testing.B) {
	a := ofWorkload(fullWorkload())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := workload.FromProto(a); err != nil {
			b.Fatal(err)
		}
	}
}
