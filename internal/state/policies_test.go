package state_test

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	security "github.com/tulle-mesh/tulle/api/security"
	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

func policy(namespace, name string, scope security.Scope) *security.Authorization {
	return &security.Authorization{Name: name, Namespace: namespace, Scope: scope, Rules: []*security.Rule{{}}}
}

func applyPolicies(t *testing.T, s *state.Store, messages ...proto.Message) *state.Snapshot {
	t.Helper()
	for _, r := range s.AuthorizationHandler().Apply(delta(t, messages...)) {
		t.Fatalf("%s rejected: %v", r.Name, r.Err)
	}
	return s.Snapshot()
}

func selects(keys ...string) func(*api.Workload) {
	return func(w *api.Workload) { w.AuthorizationPolicies = keys }
}

func TestPoliciesOfAWorkload(t *testing.T) {
	s := state.New(state.Config{})
	applyPolicies(t, s,
		policy("istio-system", "global", security.Scope_GLOBAL),
		policy("shop", "own", security.Scope_NAMESPACE),
		policy("other", "theirs", security.Scope_NAMESPACE),
		policy("shop", "selected", security.Scope_WORKLOAD_SELECTOR),
		policy("shop", "unselected", security.Scope_WORKLOAD_SELECTOR),
		policy("istio-system", "static", security.Scope_WORKLOAD_SELECTOR))
	snap := apply(t, s,
		pod("a", "10.0.0.1"),
		pod("b", "10.0.0.2", selects("shop/selected", "istio-system/static", "shop/own")),
		pod("c", "10.0.0.3", func(w *api.Workload) { w.Namespace = "quiet" }))
	for name, want := range map[string][]string{
		"a": {"istio-system/global", "shop/own"},
		"b": {"istio-system/global", "shop/own", "shop/selected", "istio-system/static"},
		"c": {"istio-system/global"},
	} {
		w := snap.WorkloadByUID("Kubernetes//Pod/shop/" + name)
		if got := snap.Policies(w).Names(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	a := snap.WorkloadByPod("shop", "a")
	if !snap.Policies(a).Equal(snap.Policies(a)) {
		t.Error("the same policies are not equal")
	}
	snap2 := applyPolicies(t, s, policy("shop", "more", security.Scope_NAMESPACE))
	if snap2.Policies(a).Equal(snap.Policies(a)) {
		t.Error("a new policy goes unnoticed")
	}
	s.AuthorizationHandler().Apply(xdsclient.Delta{Removed: []string{"istio-system/global", "shop/own", "shop/more", "no/such"}})
	if got := s.Snapshot().Policies(a).Names(); len(got) != 0 {
		t.Errorf("%q are left", got)
	}
}

func TestListedPolicyThatIsNotKnownDenies(t *testing.T) {
	s := state.New(state.Config{})
	snap := apply(t, s, pod("a", "10.0.0.1", selects("shop/late")))
	attributes := authz.Attributes{Source: addr("10.0.0.2"), Destination: pairOf("10.0.0.1:80")}
	_, _, err := snap.Policies(snap.WorkloadByPod("shop", "a")).Authorize(attributes)
	var denial *authz.Denial
	if !errors.As(err, &denial) || !denial.Incomplete {
		t.Fatalf("error is %v", err)
	}
	snap = applyPolicies(t, s, policy("shop", "late", security.Scope_WORKLOAD_SELECTOR))
	if _, _, err := snap.Policies(snap.WorkloadByPod("shop", "a")).Authorize(attributes); err != nil {
		t.Error(err)
	}
}

func TestUnknownWorkloadIsDenied(t *testing.T) {
	snap := state.New(state.Config{}).Snapshot()
	_, _, err := snap.Policies(nil).Authorize(authz.Attributes{Source: addr("10.0.0.2"), Destination: pairOf("10.0.0.1:80")})
	if err == nil {
		t.Error("allowed")
	}
}

func TestRejectedPolicyLeavesTheLastGoodOne(t *testing.T) {
	s := state.New(state.Config{})
	applyPolicies(t, s, policy("shop", "p", security.Scope_GLOBAL))
	before := s.Snapshot()
	d := xdsclient.Delta{Resources: []xdsclient.Resource{
		pack(t, "shop/p", policy("shop", "q", security.Scope_GLOBAL)),
		pack(t, "shop/nameless", policy("shop", "", security.Scope_GLOBAL)),
		pack(t, "shop/other", &api.Port{}),
	}}
	if got := s.AuthorizationHandler().Apply(d); len(got) != 3 {
		t.Errorf("rejected %v", got)
	}
	if s.Snapshot() != before || before.Policy("shop/p") == nil {
		t.Error("the snapshot changed")
	}
}

// Live connections look at their permission again only when PolicyVersion moves.
func TestPolicyVersionMovesOnlyWithWhatAuthorizes(t *testing.T) {
	s := state.New(state.Config{})
	apply(t, s, pod("a", "10.0.0.1", in("web")))
	v := s.Snapshot().PolicyVersion()
	moved := func(what string, want bool) {
		t.Helper()
		now := s.Snapshot().PolicyVersion()
		if (now != v) != want {
			t.Errorf("%s: moved %v, want %v", what, now != v, want)
		}
		v = now
	}
	apply(t, s, pod("a", "10.0.0.1", in("web"), unhealthy))
	moved("health", false)
	apply(t, s, service("web", "10.96.0.1"))
	moved("service", false)
	apply(t, s, pod("a", "10.0.0.1", in("web"), selects("shop/p")))
	moved("selected policies", true)
	applyPolicies(t, s, policy("shop", "p", security.Scope_WORKLOAD_SELECTOR))
	moved("policy", true)
	remove(s, "Kubernetes//Pod/shop/a")
	moved("removal", true)
	apply(t, s, pod("a", "10.0.0.1"))
	moved("return", true)
}
