package nexthop_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

func (m *mesh) candidates(dest string) string {
	m.t.Helper()
	snap := m.store.Snapshot()
	var out []string
	for _, c := range nexthop.Candidates(snap, nexthop.Input{
		Source: snap.WorkloadByPod("shop", "client"), Dest: netip.MustParseAddrPort(dest),
	}) {
		name := "-"
		if c.Workload != nil {
			name = c.Workload.Name
		}
		out = append(out, fmt.Sprintf("%s %s %d %s", name, c.Kind, c.Weight, c.Unfit))
	}
	return strings.Join(out, "\n")
}

func TestCandidatesAreTheWaysOfDecide(t *testing.T) {
	m := newMesh(t).pod("client", "10.0.0.1", place("n1", "eu-a")).service("web", "10.96.0.1").
		pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web"), capacity(3)).
		pod("c", "10.0.0.4", of("web"), unhealthy).pod("d", "10.0.0.5", of("web"), plain).
		pod("e", "10.0.0.6", of("web", port(80, 15008)))
	if got, want := m.candidates("10.96.0.1:80"), strings.Join([]string{
		"a hbone 1 ", "b hbone 3 ", "c deny 0 not healthy", "d direct 1 ",
		"e deny 1 10.0.0.6:15008: port 15008 of workload Kubernetes//Pod/shop/e belongs to the mesh itself",
	}, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for dest, want := range map[string]string{
		"10.96.0.1:9":    "- deny 0 service shop/web.shop.svc: has no port 9",
		"10.0.0.2:8080":  "a hbone 1 ",
		"203.0.113.1:80": "- passthrough 1 ",
		"127.0.0.1:80":   "- deny 0 destination 127.0.0.1:80 is the pod itself and does not belong into the mesh",
	} {
		if got := m.candidates(dest); got != want {
			t.Errorf("%s: got %q, want %q", dest, got, want)
		}
	}
}

func TestCandidatesFollowTheRoutingPreference(t *testing.T) {
	for mode, want := range map[api.LoadBalancing_Mode]string{
		api.LoadBalancing_FAILOVER: "far deny 0 farther|near hbone 1 ",
		api.LoadBalancing_STRICT:   "far deny 0 outside|near hbone 1 ",
	} {
		m := newMesh(t).pod("client", "10.0.0.1", place("n1", "eu-a"))
		m.service("web", "10.96.0.1", func(s *api.Service) {
			s.LoadBalancing = &api.LoadBalancing{Mode: mode, RoutingPreference: []api.LoadBalancing_Scope{api.LoadBalancing_NODE}}
		})
		m.pod("far", "10.0.0.2", of("web"), place("n2", "eu-a")).pod("near", "10.0.0.3", of("web"), place("n1", "eu-a"))
		got := strings.Split(m.candidates("10.96.0.1:80"), "\n")
		parts := strings.Split(want, "|")
		if len(got) != 2 || !strings.HasPrefix(strings.Replace(got[0], "hbone", "deny", 1), parts[0]) || got[1] != parts[1] {
			t.Errorf("%v: %q", mode, got)
		}
	}
}

// What Decide chooses for any number is among the candidates, and each candidate
// with a weight is chosen for some number.
func TestCandidatesAndDecideAgree(t *testing.T) {
	m := newMesh(t).pod("client", "10.0.0.1").service("web", "10.96.0.1").
		pod("a", "10.0.0.2", of("web")).pod("b", "10.0.0.3", of("web"), capacity(2)).pod("c", "10.0.0.4", of("web"), unhealthy)
	snap := m.store.Snapshot()
	in := nexthop.Input{Source: snap.WorkloadByPod("shop", "client"), Dest: netip.MustParseAddrPort("10.96.0.1:80")}
	var possible, chosen []string
	for _, c := range nexthop.Candidates(snap, in) {
		if c.Weight > 0 {
			possible = append(possible, c.Workload.Name+" "+c.Target.String()+" "+c.Authority)
		}
	}
	for i := range 3 {
		in.Pick = func(int) int { return i }
		d := nexthop.Decide(snap, in)
		chosen = append(chosen, d.Workload.Name+" "+d.Target.String()+" "+d.Authority)
	}
	slices.Sort(chosen)
	if chosen = slices.Compact(chosen); !slices.Equal(possible, chosen) {
		t.Errorf("candidates %q, chosen %q", possible, chosen)
	}
}

func TestEveryWaypointThatSharesTheConnectionsIsACandidate(t *testing.T) {
	m := waypoint(newMesh(t).pod("client", "10.0.0.1")).
		service("wp2", "10.96.0.8", func(s *api.Service) { s.Ports = nil }).pod("wp2", "10.0.0.8", of("wp2")).
		service("web", "10.96.0.1", viaService(hostname("wp")), func(s *api.Service) {
			s.WeightedWaypoints = []*api.WeightedWaypoint{
				{Destination: hostname("wp2"), Weight: 40}, {Destination: hostname("wp"), Weight: 60}, {Destination: hostname("wp3")},
			}
		})
	if got, want := m.candidates("10.96.0.1:80"), "wp2 waypoint 40 \nwp waypoint 60 "; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
