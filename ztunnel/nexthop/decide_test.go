package nexthop_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/google/go-cmp/cmp"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// mesh is a snapshot in the making.
type mesh struct {
	t     testing.TB
	store *state.Store
}

func newMesh(t testing.TB) *mesh { return &mesh{t, state.New(state.Config{})} }

func (m *mesh) put(name string, a *api.Address) {
	m.t.Helper()
	body, err := anypb.New(a)
	if err != nil {
		m.t.Fatal(err)
	}
	d := xdsclient.Delta{Resources: []xdsclient.Resource{{Name: name, Body: body}}}
	for _, r := range m.store.AddressHandler().Apply(d) {
		m.t.Fatalf("%s: %v", r.Name, r.Err)
	}
}

type change func(*api.Workload)

// pod adds a pod of the mesh in namespace shop with account <name>.
func (m *mesh) pod(name, ip string, changes ...change) *mesh {
	m.t.Helper()
	w := &api.Workload{
		Uid: "Kubernetes//Pod/shop/" + name, Name: name, Namespace: "shop", ServiceAccount: name,
		TunnelProtocol: api.TunnelProtocol_HBONE,
	}
	for _, a := range strings.Fields(ip) {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(a).AsSlice())
	}
	for _, c := range changes {
		c(w)
	}
	m.put(w.Uid, &api.Address{Type: &api.Address_Workload{Workload: w}})
	return m
}

// service adds shop/<name>.shop.svc with port 80 → 8080 and named port 81.
func (m *mesh) service(name, vip string, changes ...func(*api.Service)) *mesh {
	m.t.Helper()
	s := &api.Service{
		Name: name, Namespace: "shop", Hostname: name + ".shop.svc",
		Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 81}},
	}
	for _, a := range strings.Fields(vip) {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			ip := netip.MustParseAddr(a)
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		s.Addresses = append(s.Addresses, &api.NetworkAddress{Address: p.Addr().AsSlice(), Length: proto.Uint32(uint32(p.Bits()))})
	}
	for _, c := range changes {
		c(s)
	}
	m.put("shop/"+s.Hostname, &api.Address{Type: &api.Address_Service{Service: s}})
	return m
}

func of(service string, ports ...*api.Port) change {
	return func(w *api.Workload) {
		if w.Services == nil {
			w.Services = map[string]*api.PortList{}
		}
		w.Services["shop/"+service+".shop.svc"] = &api.PortList{Ports: ports}
	}
}

func plain(w *api.Workload)     { w.TunnelProtocol = api.TunnelProtocol_NONE }
func legacy(w *api.Workload)    { w.TunnelProtocol = api.TunnelProtocol_LEGACY_ISTIO_MTLS }
func unhealthy(w *api.Workload) { w.Status = api.WorkloadStatus_UNHEALTHY }

func network(name string) change { return func(w *api.Workload) { w.Network = name } }
func capacity(n uint32) change {
	return func(w *api.Workload) { w.Capacity = wrapperspb.UInt32(n) }
}

func place(node, zone string) change {
	return func(w *api.Workload) {
		w.Node = node
		w.Locality = &api.Locality{Region: "eu", Zone: zone}
	}
}

func hostname(name string) *api.GatewayAddress {
	return &api.GatewayAddress{Destination: &api.GatewayAddress_Hostname{
		Hostname: &api.NamespacedHostname{Namespace: "shop", Hostname: name + ".shop.svc"}}}
}

func address(ip string) *api.GatewayAddress {
	return &api.GatewayAddress{Destination: &api.GatewayAddress_Address{
		Address: &api.NetworkAddress{Address: netip.MustParseAddr(ip).AsSlice()}}}
}

func via(g *api.GatewayAddress) change { return func(w *api.Workload) { w.Waypoint = g } }
func viaService(g *api.GatewayAddress) func(*api.Service) {
	return func(s *api.Service) { s.Waypoint = g }
}

func port(service, target uint32) *api.Port {
	return &api.Port{ServicePort: service, TargetPort: target}
}

// decide asks for a connection of pod "client" and returns the decision in one line.
func (m *mesh) decide(dest string, picks ...int) string {
	m.t.Helper()
	d := m.decision(dest, picks...)
	if d.Kind == nexthop.Deny {
		return "deny: " + d.Reason
	}
	out := d.Kind.String() + " " + d.Target.String()
	if d.Kind.Tunnelled() {
		out += " authority " + d.Authority + " expects"
		for _, id := range d.Expected {
			out += " " + strings.TrimPrefix(id.Path(), "/ns/shop/sa/")
		}
	}
	if d.Service != nil {
		out += " service " + d.Service.Name
	}
	if d.Workload != nil {
		out += " workload " + d.Workload.Name
	}
	if d.Upstream != d.Target && d.Upstream.String() != d.Authority {
		out += " upstream " + d.Upstream.String()
	}
	return out
}

func (m *mesh) decision(dest string, picks ...int) nexthop.Decision {
	snap := m.store.Snapshot()
	return nexthop.Decide(snap, nexthop.Input{
		Source: snap.WorkloadByPod("shop", "client"),
		Dest:   netip.MustParseAddrPort(dest),
		Pick: func(n int) int {
			if len(picks) == 0 {
				return 0
			}
			p := picks[0]
			picks = picks[1:]
			if p >= n {
				m.t.Fatalf("picked %d of %d", p, n)
			}
			return p
		},
	})
}

func TestDecide(t *testing.T) {
	client := func(t *testing.T) *mesh { return newMesh(t).pod("client", "10.0.0.1 fd00::1") }
	for _, tt := range []struct {
		name string
		mesh func(m *mesh)
		dest string
		want string
	}{
		{"unknown destination", func(*mesh) {}, "93.184.216.34:443", "passthrough 93.184.216.34:443"},
		{"mapped address", func(*mesh) {}, "[::ffff:93.184.216.34]:443", "passthrough 93.184.216.34:443"},
		{"pod by address", func(m *mesh) { m.pod("a", "10.0.0.2") }, "10.0.0.2:9000",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:9000 expects a workload a"},
		{"pod by IPv6 address", func(m *mesh) { m.pod("a", "fd00::2") }, "[fd00::2]:9000",
			"hbone [fd00::2]:15008 authority [fd00::2]:9000 expects a workload a"},
		{"unhealthy pod by address", func(m *mesh) { m.pod("a", "10.0.0.2", unhealthy) }, "10.0.0.2:9000",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:9000 expects a workload a"},
		{"pod outside the mesh", func(m *mesh) { m.pod("a", "10.0.0.2", plain) }, "10.0.0.2:9000", "direct 10.0.0.2:9000 workload a"},
		{"pod with a sidecar", func(m *mesh) { m.pod("a", "10.0.0.2", legacy) }, "10.0.0.2:9000", "direct 10.0.0.2:9000 workload a"},
		{"itself by address", func(*mesh) {}, "10.0.0.1:9000", "direct 10.0.0.1:9000 workload client"},
		{"itself behind a service", func(m *mesh) { m.service("web", "10.96.0.1").pod("client", "10.0.0.1", of("web")) },
			"10.96.0.1:80", "direct 10.0.0.1:8080 service web workload client"},

		{"tunnel port of a mesh pod", func(m *mesh) { m.pod("a", "10.0.0.2") }, "10.0.0.2:15008",
			"deny: 10.0.0.2:15008: port 15008 of workload Kubernetes//Pod/shop/a belongs to the mesh itself"},
		{"outbound port of a mesh pod", func(m *mesh) { m.pod("a", "10.0.0.2") }, "10.0.0.2:15001",
			"deny: 10.0.0.2:15001: port 15001 of workload Kubernetes//Pod/shop/a belongs to the mesh itself"},
		{"its own tunnel port", func(*mesh) {}, "10.0.0.1:15008",
			"deny: 10.0.0.1:15008: port 15008 of workload Kubernetes//Pod/shop/client belongs to the mesh itself"},
		{"tunnel port of a stranger", func(*mesh) {}, "10.9.9.9:15008", "passthrough 10.9.9.9:15008"},
		{"loopback", func(*mesh) {}, "127.0.0.1:80", "deny: destination 127.0.0.1:80 is the pod itself and does not belong into the mesh"},
		{"multicast", func(*mesh) {}, "224.0.0.1:80", "deny: destination 224.0.0.1:80 is not one host"},
		{"no port", func(*mesh) {}, "10.0.0.2:0", "deny: the original destination is not known"},

		{"service", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web")) }, "10.96.0.1:80",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"service with extra identities", func(m *mesh) {
			m.service("web", "10.96.0.1", func(s *api.Service) {
				s.SubjectAltNames = []string{"spiffe://cluster.local/ns/shop/sa/b", "spiffe://cluster.local/ns/shop/sa/a"}
			}).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a b service web workload a"},
		{"service before workload on one address", func(m *mesh) { m.service("web", "10.0.0.2").pod("a", "10.0.0.2", of("web")) }, "10.0.0.2:80",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"service over IPv6 takes the IPv6 address", func(m *mesh) { m.service("web", "fd00:96::1").pod("a", "10.0.0.2 fd00::2", of("web")) }, "[fd00:96::1]:80",
			"hbone [fd00::2]:15008 authority [fd00::2]:8080 expects a service web workload a"},
		{"service over IPv6 with an IPv4 pod", func(m *mesh) { m.service("web", "fd00:96::1").pod("a", "10.0.0.2", of("web")) }, "[fd00:96::1]:80",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"service of pods outside the mesh", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", plain, of("web")) }, "10.96.0.1:80",
			"direct 10.0.0.2:8080 service web workload a"},
		{"unknown service port", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web")) }, "10.96.0.1:9",
			"deny: service shop/web.shop.svc: has no port 9"},
		{"no endpoints", func(m *mesh) { m.service("web", "10.96.0.1") }, "10.96.0.1:80",
			"deny: service shop/web.shop.svc: has no endpoints"},
		{"no healthy endpoint", func(m *mesh) {
			m.service("web", "10.96.0.1").pod("a", "10.0.0.2", unhealthy, of("web")).pod("b", "10.0.0.3", capacity(0), of("web"))
		}, "10.96.0.1:80", "deny: service shop/web.shop.svc: none of its endpoints can serve port 80: 1 not healthy, 1 without capacity"},
		{"unhealthy endpoints allowed", func(m *mesh) {
			m.service("web", "10.96.0.1", func(s *api.Service) {
				s.LoadBalancing = &api.LoadBalancing{HealthPolicy: api.LoadBalancing_ALLOW_ALL}
			}).pod("a", "10.0.0.2", unhealthy, of("web"))
		}, "10.96.0.1:80", "hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"endpoints in another network", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", network("east"), of("web")) }, "10.96.0.1:80",
			"deny: service shop/web.shop.svc: none of its endpoints can serve port 80: 1 in another network"},
		{"endpoint without address", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "", of("web")) }, "10.96.0.1:80",
			"deny: service shop/web.shop.svc: none of its endpoints can serve port 80: 1 without an address (names are not resolved)"},
		{"address known only in another network", func(m *mesh) { m.pod("a", "10.0.0.2", network("east")) }, "10.0.0.2:80", "passthrough 10.0.0.2:80"},
		{"private service of another namespace", func(m *mesh) {
			m.service("web", "10.96.0.1", func(s *api.Service) { s.Visibility = api.Service_NAMESPACE }).pod("a", "10.0.0.2", of("web")).
				pod("client", "10.0.0.1", func(w *api.Workload) { w.Namespace = "other" })
		}, "10.96.0.1:80", "passthrough 10.96.0.1:80"},

		{"endpoint's own port", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web", port(80, 9090))) }, "10.96.0.1:80",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:9090 expects a service web workload a"},
		{"named port", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web", port(81, 9091))) }, "10.96.0.1:81",
			"hbone 10.0.0.2:15008 authority 10.0.0.2:9091 expects a service web workload a"},
		{"named port that no endpoint has", func(m *mesh) {
			m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web", port(81, 0))).
				pod("c", "10.0.0.4", of("web", port(80, 8080)))
		}, "10.96.0.1:81", "deny: service shop/web.shop.svc: none of its endpoints can serve port 81: 3 without this port"},
		{"only the endpoint with the port", func(m *mesh) {
			m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web", port(80, 8080))).pod("b", "10.0.0.3", of("web", port(81, 9)))
		}, "10.96.0.1:81", "hbone 10.0.0.3:15008 authority 10.0.0.3:9 expects b service web workload b"},
		{"target is a port of the mesh", func(m *mesh) { m.service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web", port(80, 15006))) }, "10.96.0.1:80",
			"deny: 10.0.0.2:15006: port 15006 of workload Kubernetes//Pod/shop/a belongs to the mesh itself"},

		{"passthrough mode", func(m *mesh) {
			m.service("ext", "203.0.113.0/24", passthrough)
		}, "203.0.113.7:443", "passthrough 203.0.113.7:443 service ext"},
		{"passthrough mode to a pod of the mesh", func(m *mesh) {
			m.service("ext", "10.0.0.0/24", passthrough).pod("a", "10.0.0.2")
		}, "10.0.0.2:443", "hbone 10.0.0.2:15008 authority 10.0.0.2:443 expects a service ext workload a"},

		{"waypoint of a service", func(m *mesh) {
			waypoint(m).service("web", "10.96.0.1", viaService(hostname("wp"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "waypoint 10.0.0.9:15008 authority 10.96.0.1:80 expects wp service web workload wp"},
		{"waypoint by address", func(m *mesh) {
			waypoint(m).service("web", "10.96.0.1", viaService(address("10.96.0.9"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "waypoint 10.0.0.9:15008 authority 10.96.0.1:80 expects wp service web workload wp"},
		{"waypoint by its pod's address", func(m *mesh) {
			waypoint(m).service("web", "10.96.0.1", viaService(address("10.0.0.9"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "waypoint 10.0.0.9:15008 authority 10.96.0.1:80 expects wp service web workload wp"},
		{"waypoint of a workload", func(m *mesh) { waypoint(m).pod("a", "10.0.0.2", via(hostname("wp"))) }, "10.0.0.2:9000",
			"waypoint 10.0.0.9:15008 authority 10.0.0.2:9000 expects wp workload wp"},
		{"a service's waypoint, not its workload's", func(m *mesh) {
			waypoint(m).service("web", "10.96.0.1").pod("a", "10.0.0.2", of("web"), via(hostname("wp")))
		}, "10.96.0.1:80", "hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"waypoint that is not known", func(m *mesh) {
			m.service("web", "10.96.0.1", viaService(hostname("wp"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "deny: waypoint shop/wp.shop.svc: is not known"},
		{"waypoint without endpoints", func(m *mesh) {
			m.service("wp", "10.96.0.9").service("web", "10.96.0.1", viaService(hostname("wp"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "deny: waypoint shop/wp.shop.svc: service shop/wp.shop.svc: has no endpoints"},
		{"the waypoint itself", func(m *mesh) {
			m.service("wp", "10.96.0.9").pod("client", "10.0.0.1", of("wp")).service("web", "10.96.0.1", viaService(hostname("wp"))).pod("a", "10.0.0.2", of("web"))
		}, "10.96.0.1:80", "hbone 10.0.0.2:15008 authority 10.0.0.2:8080 expects a service web workload a"},
		{"the waypoint itself, by address", func(m *mesh) {
			m.pod("a", "10.0.0.2", via(address("10.0.0.1")))
		}, "10.0.0.2:80", "hbone 10.0.0.2:15008 authority 10.0.0.2:80 expects a workload a"},
		{"itself in spite of a waypoint", func(m *mesh) { waypoint(m).pod("client", "10.0.0.1", via(hostname("wp"))) }, "10.0.0.1:80",
			"direct 10.0.0.1:80 workload client"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := client(t)
			tt.mesh(m)
			got := m.decide(tt.dest)
			// The pod of another namespace is found under its own name.
			if got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func passthrough(s *api.Service) {
	s.LoadBalancing = &api.LoadBalancing{Mode: api.LoadBalancing_PASSTHROUGH}
}

// waypoint adds the waypoint wp: a service and its one pod.
func waypoint(m *mesh) *mesh {
	return m.service("wp", "10.96.0.9", func(s *api.Service) { s.Ports = []*api.Port{port(15008, 15008)} }).
		pod("wp", "10.0.0.9", of("wp"))
}

func TestConnectionOfNobodyIsDenied(t *testing.T) {
	snap := newMesh(t).pod("a", "10.0.0.2").store.Snapshot()
	d := nexthop.Decide(snap, nexthop.Input{Dest: netip.MustParseAddrPort("10.0.0.2:80")})
	if d.Kind != nexthop.Deny || d.Reason != "the source workload is not known" {
		t.Errorf("%+v", d)
	}
}

func TestRoutingPreference(t *testing.T) {
	build := func(mode api.LoadBalancing_Mode, pods func(m *mesh)) *mesh {
		m := newMesh(t).pod("client", "10.0.0.1", place("n1", "eu-a"))
		m.service("web", "10.96.0.1", func(s *api.Service) {
			s.LoadBalancing = &api.LoadBalancing{Mode: mode, RoutingPreference: []api.LoadBalancing_Scope{
				api.LoadBalancing_NETWORK, api.LoadBalancing_REGION, api.LoadBalancing_ZONE, api.LoadBalancing_NODE}}
		})
		pods(m)
		return m
	}
	sameNode := func(m *mesh) {
		m.pod("far", "10.0.0.2", of("web"), place("n3", "eu-b")).pod("zone", "10.0.0.3", of("web"), place("n2", "eu-a")).
			pod("node", "10.0.0.4", of("web"), place("n1", "eu-a"))
	}
	sickNode := func(m *mesh) { sameNode(m); m.pod("node", "10.0.0.4", unhealthy, of("web"), place("n1", "eu-a")) }
	for _, tt := range []struct {
		name string
		mode api.LoadBalancing_Mode
		pods func(*mesh)
		want string
	}{
		{"failover takes the nearest", api.LoadBalancing_FAILOVER, sameNode, "node"},
		{"failover goes on to the next", api.LoadBalancing_FAILOVER, sickNode, "zone"},
		{"strict takes only the nearest", api.LoadBalancing_STRICT, sameNode, "node"},
		{"strict denies without it", api.LoadBalancing_STRICT, sickNode, ""},
		{"no mode, no preference", api.LoadBalancing_UNSPECIFIED_MODE, sameNode, "far"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := build(tt.mode, tt.pods).decision("10.96.0.1:80")
			got := ""
			if d.Workload != nil {
				got = d.Workload.Name
			}
			if got != tt.want {
				t.Errorf("%q, want %q (%s)", got, tt.want, d.Reason)
			}
		})
	}
	d := build(api.LoadBalancing_STRICT, sickNode).decision("10.96.0.1:80")
	if want := "service shop/web.shop.svc: none of its endpoints can serve port 80: 1 not healthy, 2 outside the strict routing preference"; d.Reason != want {
		t.Errorf("reason %q", d.Reason)
	}
}

// Every unit of capacity is picked by exactly one number.
func TestBalancingIsByCapacity(t *testing.T) {
	m := newMesh(t).pod("client", "10.0.0.1").service("web", "10.96.0.1").
		pod("a", "10.0.0.2", of("web"), capacity(1)).pod("b", "10.0.0.3", of("web"), capacity(3)).
		pod("c", "10.0.0.4", of("web"), capacity(0)).pod("d", "10.0.0.5", of("web"), unhealthy, capacity(9))
	got := map[string]int{}
	for i := range 4 {
		got[m.decision("10.96.0.1:80", i).Workload.Name]++
	}
	if d := cmp.Diff(map[string]int{"a": 1, "b": 3}, got); d != "" {
		t.Error(d)
	}
}

// An unfit endpoint's share goes to the fit ones by their capacity.
func TestBalancingPastUnfitEndpointsKeepsShares(t *testing.T) {
	m := newMesh(t).pod("client", "10.0.0.1").service("web", "10.96.0.1").
		pod("a", "10.0.0.2", of("web"), capacity(1)).pod("b", "10.0.0.3", of("web"), capacity(2)).
		pod("c", "10.0.0.4", of("web"), capacity(3), network("east"))
	got := map[string]int{}
	for first := range 6 {
		for second := range 3 {
			got[m.decision("10.96.0.1:80", first, second).Workload.Name]++
		}
	}
	if d := cmp.Diff(map[string]int{"a": 6, "b": 12}, got); d != "" {
		t.Error(d)
	}
}

func TestWeightedWaypoints(t *testing.T) {
	m := waypoint(newMesh(t).pod("client", "10.0.0.1")).
		service("wp2", "10.96.0.8", func(s *api.Service) { s.Ports = nil }).pod("wp2", "10.0.0.8", of("wp2")).
		service("web", "10.96.0.1", viaService(hostname("wp")), func(s *api.Service) {
			s.WeightedWaypoints = []*api.WeightedWaypoint{{Destination: hostname("wp"), Weight: 3}, {Destination: hostname("wp2"), Weight: 1}}
		})
	got := map[string]int{}
	for i := range 4 {
		d := m.decision("10.96.0.1:80", i)
		if d.Kind != nexthop.Waypoint {
			t.Fatalf("%s", m.decide("10.96.0.1:80", i))
		}
		got[d.Workload.Name]++
	}
	if d := cmp.Diff(map[string]int{"wp": 3, "wp2": 1}, got); d != "" {
		t.Error(d)
	}
}

func BenchmarkDecide(b *testing.B) {
	m := newMesh(b).pod("client", "10.0.0.1").service("web", "10.96.0.1")
	for i := range 100 {
		m.pod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.1.0.%d", i+1), of("web"))
	}
	snap := m.store.Snapshot()
	in := nexthop.Input{Source: snap.WorkloadByPod("shop", "client"), Dest: netip.MustParseAddrPort("10.96.0.1:80")}
	var w *workload.Workload
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		in.Pick = func(n int) int { return i % n }
		w = nexthop.Decide(snap, in).Workload
	}
	if w == nil {
		b.Fatal("nobody")
	}
}
