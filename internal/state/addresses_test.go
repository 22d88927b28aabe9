package state_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

var web = workload.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc"}

func uids(e state.Endpoints) []string {
	out := []string{}
	for w := range e.All() {
		out = append(out, w.Name)
	}
	return out
}

func TestWorkloadIsFoundByAllItsNames(t *testing.T) {
	s := state.New(state.Config{})
	snap := apply(t, s, pod("a", "10.0.0.1", func(w *api.Workload) {
		w.Addresses = append(w.Addresses, addr("fd00::1").AsSlice())
	}))
	for name, w := range map[string]*workload.Workload{
		"uid":    snap.WorkloadByUID("Kubernetes//Pod/shop/a"),
		"pod":    snap.WorkloadByPod("shop", "a"),
		"v4":     snap.WorkloadByAddr("", addr("10.0.0.1")),
		"mapped": snap.WorkloadByAddr("", addr("::ffff:10.0.0.1")),
		"v6":     snap.WorkloadByAddr("", addr("fd00::1")),
	} {
		if w == nil || w.Name != "a" {
			t.Errorf("not found by %s: %v", name, w)
		}
	}
	if w := snap.WorkloadByAddr("other", addr("10.0.0.1")); w != nil {
		t.Errorf("found in another network: %v", w.UID)
	}
	snap = remove(s, "Kubernetes//Pod/shop/a")
	if snap.WorkloadByUID("Kubernetes//Pod/shop/a") != nil || snap.WorkloadByAddr("", addr("fd00::1")) != nil {
		t.Error("still found after its removal")
	}
}

func TestNoAddressIsNobodys(t *testing.T) {
	s := state.New(state.Config{})
	snap := apply(t, s, pod("a", "10.0.0.1"), service("all4", "0.0.0.0/0"), service("all6", "::/0"))
	if w := snap.WorkloadByAddr("", netip.Addr{}); w != nil {
		t.Errorf("found %s", w.UID)
	}
	if svc := snap.ServiceByVIP("", netip.Addr{}); svc != nil {
		t.Errorf("found %s", svc.Name)
	}
}

func TestPodOfAnotherClusterIsNotThisNodes(t *testing.T) {
	s := state.New(state.Config{ClusterID: "east"})
	snap := apply(t, s, pod("a", "10.0.0.1"))
	if w := snap.WorkloadByPod("shop", "a"); w != nil {
		t.Errorf("found %s", w.UID)
	}
}

func TestChangedWorkloadMovesInTheIndexes(t *testing.T) {
	s := state.New(state.Config{})
	apply(t, s, pod("a", "10.0.0.1", in("web", "old")))
	snap := apply(t, s, pod("a", "10.0.0.2", in("web", "new")))
	if snap.WorkloadByAddr("", addr("10.0.0.1")) != nil {
		t.Error("still found by its former address")
	}
	if w := snap.WorkloadByAddr("", addr("10.0.0.2")); w == nil {
		t.Error("not found by its new address")
	}
	for host, want := range map[string]int{"web": 1, "new": 1, "old": 0} {
		if got := snap.Endpoints(workload.ServiceKey{Namespace: "shop", Hostname: host + ".shop.svc"}).Len(); got != want {
			t.Errorf("%s has %d endpoints, want %d", host, got, want)
		}
	}
}

func TestHostNetworkWorkloadsAreNotFoundByAddress(t *testing.T) {
	s := state.New(state.Config{})
	snap := apply(t, s,
		pod("daemon", "192.168.0.1", in("web"), func(w *api.Workload) { w.NetworkMode = api.NetworkMode_HOST_NETWORK }))
	if w := snap.WorkloadByAddr("", addr("192.168.0.1")); w != nil {
		t.Errorf("found %s", w.UID)
	}
	if got := uids(snap.Endpoints(web)); !slices.Equal(got, []string{"daemon"}) {
		t.Errorf("endpoints %v", got)
	}
}

// The rule: a pod in the mesh, then a pod, then a mesh member, then others.
func TestTwoWorkloadsOnOneAddress(t *testing.T) {
	plain := func(w *api.Workload) { w.TunnelProtocol = api.TunnelProtocol_NONE }
	entry := func(w *api.Workload) {
		w.Uid = "Kubernetes/networking.istio.io/WorkloadEntry/shop/" + w.Name
	}
	order := []*api.Workload{
		pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), pod("c", "10.0.0.1", plain),
		pod("d", "10.0.0.1", entry), pod("e", "10.0.0.1", entry, plain),
	}
	s := state.New(state.Config{})
	for _, w := range slices.Backward(order) {
		if got := apply(t, s, w).WorkloadByAddr("", addr("10.0.0.1")); got.Name != w.Name {
			t.Errorf("%s is found before %s", got.Name, w.Name)
		}
	}
	for i, w := range order {
		if got := s.Snapshot().WorkloadByAddr("", addr("10.0.0.1")); got.Name != w.Name {
			t.Errorf("after %d removals: %s, want %s", i, got.Name, w.Name)
		}
		remove(s, w.Uid)
	}
	if s.Snapshot().WorkloadByAddr("", addr("10.0.0.1")) != nil {
		t.Error("somebody is left")
	}
}

func TestEndpointsAreStagedUntilTheServiceArrives(t *testing.T) {
	s := state.New(state.Config{})
	snap := apply(t, s, pod("b", "10.0.0.2", in("web"), unhealthy), pod("a", "10.0.0.1", in("web")))
	if snap.ServiceByHost(web) != nil {
		t.Fatal("a service came from nowhere")
	}
	snap = apply(t, s, service("web", "10.96.0.1"))
	e := snap.Endpoints(snap.ServiceByVIP("", addr("10.96.0.1")).Key())
	if got := uids(e); !slices.Equal(got, []string{"a", "b"}) || e.Healthy() != 1 {
		t.Errorf("endpoints %v, %d healthy", got, e.Healthy())
	}
	// The service may go and come back without its workloads being sent again.
	remove(s, "shop/web.shop.svc")
	if got := apply(t, s, service("web")).Endpoints(web).Len(); got != 2 {
		t.Errorf("%d endpoints after the service came back", got)
	}
}

func TestServiceByVIP(t *testing.T) {
	s := state.New(state.Config{})
	elsewhere := service("far", "10.96.0.1")
	elsewhere.Addresses[0].Network = "east"
	snap := apply(t, s,
		service("web", "10.96.0.1", "fd00:96::1"), elsewhere,
		service("wide", "10.0.0.0/8"), service("narrow", "10.96.0.0/17", "fd00::/9"), service("all6", "::/0"))
	for _, tt := range []struct{ network, addr, want string }{
		{"", "10.96.0.1", "web"},
		{"", "::ffff:10.96.0.1", "web"},
		{"", "fd00:96::1", "web"},
		{"east", "10.96.0.1", "far"},
		{"east", "10.96.0.2", ""},
		{"", "10.96.127.255", "narrow"},
		{"", "10.96.128.0", "wide"},
		{"", "11.0.0.0", ""},
		{"", "fd7f::1", "narrow"},
		{"", "fe80::1", "all6"},
		{"west", "10.96.0.1", ""},
	} {
		got := ""
		if svc := snap.ServiceByVIP(tt.network, addr(tt.addr)); svc != nil {
			got = svc.Name
		}
		if got != tt.want {
			t.Errorf("%s in network %q is %q, want %q", tt.addr, tt.network, got, tt.want)
		}
	}
	// A changed service leaves its former addresses.
	snap = apply(t, s, service("web", "10.96.0.7"))
	if svc := snap.ServiceByVIP("", addr("10.96.0.1")); svc.Name != "narrow" {
		t.Errorf("10.96.0.1 is still %s", svc.Name)
	}
	snap = remove(s, "shop/narrow.shop.svc")
	if svc := snap.ServiceByVIP("", addr("10.96.0.1")); svc.Name != "wide" {
		t.Errorf("10.96.0.1 is %s after narrow went", svc.Name)
	}
}

func TestTwoServicesOnOneVIP(t *testing.T) {
	canonical := service("z", "10.96.0.1")
	canonical.Canonical = true
	private := service("a", "10.96.0.1")
	private.Visibility = api.Service_NAMESPACE
	s := state.New(state.Config{})
	snap := apply(t, s, service("m", "10.96.0.1", "10.96.0.1"), private)
	if got := snap.ServiceByVIP("", addr("10.96.0.1")).Name; got != "a" {
		t.Errorf("%s before the first by name", got)
	}
	if got := snap.ServiceByVIPFor("other", "", addr("10.96.0.1")).Name; got != "m" {
		t.Errorf("another namespace sees %s", got)
	}
	if got := snap.ServiceByVIPFor("shop", "", addr("10.96.0.1")).Name; got != "a" {
		t.Errorf("its own namespace sees %s", got)
	}
	snap = apply(t, s, canonical)
	if got := snap.ServiceByVIP("", addr("10.96.0.1")).Name; got != "z" {
		t.Errorf("%s before the canonical one", got)
	}
	remove(s, "shop/m.shop.svc", "shop/z.shop.svc", "shop/a.shop.svc")
	if svc := s.Snapshot().ServiceByVIP("", addr("10.96.0.1")); svc != nil {
		t.Errorf("%s is left", svc.Name)
	}
}

func TestBadResourcesAreRejectedAndTheOthersStand(t *testing.T) {
	s := state.New(state.Config{})
	apply(t, s, pod("a", "10.0.0.1"))
	d := delta(t,
		pod("a", "10.0.0.9", func(w *api.Workload) { w.TunnelProtocol = 7 }),
		pod("b", "10.0.0.2"),
		service("web", "10.96.0.1"))
	d.Resources = append(d.Resources,
		pack(t, "shop/other.shop.svc", &api.Address{Type: &api.Address_Service{Service: service("web")}}),
		pack(t, "Kubernetes//Pod/shop/x", &api.Address{Type: &api.Address_Workload{Workload: pod("y", "10.0.0.3")}}),
		pack(t, "empty", &api.Address{}),
		pack(t, "other", &api.Port{}))
	d.Resources[1].Body.Value = d.Resources[1].Body.Value[:5]
	var got []string
	for _, r := range s.AddressHandler().Apply(d) {
		got = append(got, r.Name)
		if r.Name == "Kubernetes//Pod/shop/a" && !strings.Contains(r.Err.Error(), "tunnel_protocol") {
			t.Errorf("the error does not name the field: %v", r.Err)
		}
	}
	want := []string{"Kubernetes//Pod/shop/a", "Kubernetes//Pod/shop/b", "shop/other.shop.svc", "Kubernetes//Pod/shop/x", "empty", "other"}
	if !slices.Equal(got, want) {
		t.Errorf("rejected %q, want %q", got, want)
	}
	snap := s.Snapshot()
	if snap.WorkloadByAddr("", addr("10.0.0.1")) == nil {
		t.Error("the last good workload is gone")
	}
	if snap.ServiceByVIP("", addr("10.96.0.1")) == nil {
		t.Error("the good service of the batch is missing")
	}
}

func TestRemovalOfTheUnknownChangesNothing(t *testing.T) {
	s := state.New(state.Config{})
	before := s.Snapshot()
	if remove(s, "a/b", "a//b/c", "x") != before {
		t.Error("a new snapshot for nothing")
	}
}

func TestSnapshotsDoNotChange(t *testing.T) {
	s := state.New(state.Config{})
	apply(t, s, service("web", "10.96.0.1"), pod("a", "10.0.0.1", in("web")))
	snap := s.Snapshot()
	var next []proto.Message
	for range 3 {
		next = append(next, service("web"), pod("a", "10.0.0.3"), pod("b", "10.0.0.1", in("web")))
	}
	apply(t, s, next...)
	remove(s, "Kubernetes//Pod/shop/a", "shop/web.shop.svc")
	if w := snap.WorkloadByAddr("", addr("10.0.0.1")); w == nil || w.Name != "a" {
		t.Error("the old snapshot's address changed")
	}
	if svc := snap.ServiceByVIP("", addr("10.96.0.1")); svc == nil || snap.Endpoints(svc.Key()).Len() != 1 {
		t.Error("the old snapshot's service changed")
	}
}

func TestFirstDeltaMayBeEmpty(t *testing.T) {
	s := state.New(state.Config{})
	if got := s.AddressHandler().Apply(xdsclient.Delta{First: true}); got != nil {
		t.Errorf("rejected %v", got)
	}
}
