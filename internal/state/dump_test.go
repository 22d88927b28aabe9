package state_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/emptypb"

	security "github.com/tulle-mesh/tulle/api/security"
	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestDumpHasTheMembersThatIstioctlReads(t *testing.T) {
	s := state.New(state.Config{})
	svc := service("web", "10.96.0.1", "10.97.0.0/16")
	svc.Waypoint = &api.GatewayAddress{Destination: &api.GatewayAddress_Hostname{
		Hostname: &api.NamespacedHostname{Namespace: "shop", Hostname: "waypoint.shop.svc"}}}
	svc.LoadBalancing = &api.LoadBalancing{
		Mode:              api.LoadBalancing_FAILOVER,
		RoutingPreference: []api.LoadBalancing_Scope{api.LoadBalancing_NETWORK, api.LoadBalancing_REGION},
		HealthPolicy:      api.LoadBalancing_ALLOW_ALL,
	}
	svc.SubjectAltNames = []string{"spiffe://cluster.local/ns/shop/sa/web"}
	apply(t, s, svc,
		pod("a", "10.0.0.1", in("web", "late"), selects("shop/p"), func(w *api.Workload) {
			w.Locality = &api.Locality{Region: "eu", Zone: "eu-a"}
			w.ApplicationTunnel = &api.ApplicationTunnel{Protocol: api.ApplicationTunnel_PROXY, Port: 15088}
		}),
		pod("b", "10.0.0.2", unhealthy, in("web")))
	p := policy("shop", "p", security.Scope_WORKLOAD_SELECTOR)
	p.Rules = []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{
		Principals: []*security.StringMatch{
			{MatchType: &security.StringMatch_Exact{Exact: "cluster.local/ns/shop/sa/web"}},
			{MatchType: &security.StringMatch_Presence{Presence: &emptypb.Empty{}}}},
		SourceIps:        []*security.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}},
		DestinationPorts: []uint32{80},
		ServiceAccounts:  []*security.ServiceAccountMatch{{Namespace: "shop", ServiceAccount: "web"}},
	}}}}}}
	snap := applyPolicies(t, s, p)
	got, err := json.MarshalIndent(snap.Dump(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "dump.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Error(d)
	}
}
