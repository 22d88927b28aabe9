package nexthop_test

import (
	"fmt"
	"net/netip"
	"testing"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// self is what a node knows of its own pod before the control plane speaks.
func self() *workload.Workload {
	return &workload.Workload{
		UID: "Kubernetes//Pod/shop/client", Name: "client", Namespace: "shop", ServiceAccount: "client",
		TrustDomain: "cluster.local", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Protocol: workload.HBONE,
	}
}

// The sender's rows of the table in docs/decisions/0007: where a captured pod's
// connection goes while one of the two ends joins or leaves. Whether the source is
// in the mesh by the control plane's word does not matter: it is captured.
func TestWhereItGoesWhileOneEndJoinsOrLeaves(t *testing.T) {
	sources := []struct {
		name        string
		announce    func(m *mesh)
		provisional bool
	}{
		{"not announced", func(*mesh) {}, true},
		{"announced as outside", func(m *mesh) { m.pod("client", "10.0.0.1", plain) }, false},
		{"announced as member", func(m *mesh) { m.pod("client", "10.0.0.1") }, false},
	}
	tunnel := "hbone 10.0.0.2:15008"
	for _, tc := range []struct {
		destination string
		announce    func(m *mesh)
		want        string
	}{
		{"not announced", func(*mesh) {}, "passthrough 10.0.0.2:9000"},
		{"announced as outside, joins, or leaves", func(m *mesh) { m.pod("a", "10.0.0.2", plain) }, "direct 10.0.0.2:9000"},
		{"announced as member", func(m *mesh) { m.pod("a", "10.0.0.2") }, tunnel},
		{"joined", func(m *mesh) { m.pod("a", "10.0.0.2", plain).pod("a", "10.0.0.2") }, tunnel},
		{"left", func(m *mesh) { m.pod("a", "10.0.0.2").pod("a", "10.0.0.2", plain) }, "direct 10.0.0.2:9000"},
	} {
		for _, s := range sources {
			m := newMesh(t)
			s.announce(m)
			tc.announce(m)
			snap := m.store.Snapshot()
			in := nexthop.Input{Source: snap.WorkloadByPod("shop", "client"), Dest: netip.MustParseAddrPort("10.0.0.2:9000")}
			if s.provisional {
				in.Source, in.Provisional = self(), true
			}
			d := nexthop.Decide(snap, in)
			if got := fmt.Sprint(d.Kind, " ", d.Target); got != tc.want || d.Wait {
				t.Errorf("source %s, destination %s: %s (wait %v), want %s", s.name, tc.destination, got, d.Wait, tc.want)
			}
		}
	}
}

func TestProvisionalSourceWaitsWhereMoreThanItsNameMatters(t *testing.T) {
	ranked := func(mode api.LoadBalancing_Mode) func(s *api.Service) {
		return func(s *api.Service) {
			s.LoadBalancing = &api.LoadBalancing{Mode: mode, RoutingPreference: []api.LoadBalancing_Scope{api.LoadBalancing_ZONE}}
		}
	}
	for _, tc := range []struct {
		name string
		mesh func(m *mesh)
		wait bool
	}{
		{"a service", func(m *mesh) { m.service("web", "10.96.0.1") }, false},
		{"one that prefers near endpoints", func(m *mesh) { m.service("web", "10.96.0.1", ranked(api.LoadBalancing_FAILOVER)) }, true},
		{"one that insists on them", func(m *mesh) { m.service("web", "10.96.0.1", ranked(api.LoadBalancing_STRICT)) }, true},
		{"one behind a waypoint, which the source may be", func(m *mesh) { m.service("web", "10.96.0.1", viaService(hostname("wp"))) }, true},
	} {
		m := newMesh(t).pod("a", "10.0.0.2", of("web"))
		tc.mesh(m)
		for _, provisional := range []bool{true, false} {
			d := nexthop.Decide(m.store.Snapshot(), nexthop.Input{
				Source: self(), Provisional: provisional, Dest: netip.MustParseAddrPort("10.96.0.1:80"),
			})
			if d.Wait != (tc.wait && provisional) {
				t.Errorf("%s, provisional %v: wait %v", tc.name, provisional, d.Wait)
			}
		}
	}
}

func TestEndpointThatJustFailedIsAvoided(t *testing.T) {
	zones := func(s *api.Service) {
		s.LoadBalancing = &api.LoadBalancing{Mode: api.LoadBalancing_FAILOVER, RoutingPreference: []api.LoadBalancing_Scope{api.LoadBalancing_ZONE}}
	}
	for _, tc := range []struct {
		name  string
		mesh  func(m *mesh)
		avoid []string
		want  string
	}{
		{"another one", func(m *mesh) { m.pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web")) }, []string{"a"}, "b"},
		{"the only healthy one", func(m *mesh) { m.pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web"), unhealthy) }, []string{"a"}, "a"},
		{"one in another zone", func(m *mesh) {
			m.service("web", "10.96.0.1", zones)
			m.pod("a", "10.0.0.2", of("web"), place("n1", "z1")).pod("b", "10.0.0.3", of("web"), place("n2", "z2"))
		}, []string{"a"}, "b"},
		{"all of them", func(m *mesh) { m.pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web")) }, []string{"a", "b"}, "a"},
	} {
		m := newMesh(t).pod("client", "10.0.0.1", place("n1", "z1")).service("web", "10.96.0.1")
		tc.mesh(m)
		snap := m.store.Snapshot()
		in := nexthop.Input{Source: snap.WorkloadByPod("shop", "client"), Dest: netip.MustParseAddrPort("10.96.0.1:80")}
		for _, name := range tc.avoid {
			in.Avoid = append(in.Avoid, "Kubernetes//Pod/shop/"+name)
		}
		d := nexthop.Decide(snap, in)
		if d.Workload == nil || d.Workload.Name != tc.want {
			t.Errorf("%s: %v %s, want %s", tc.name, d.Workload, d.Reason, tc.want)
		}
	}
}
