package inbound_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
)

// strict denies who has no identity.
func strict(t *testing.T) authz.Policies {
	t.Helper()
	p, err := authz.ParsePolicy(&security.Authorization{
		Name: "strict", Namespace: "shop", Scope: security.Scope_NAMESPACE, Action: security.Action_DENY,
		Rules: []*security.Rule{{Clauses: []*security.Clause{{Matches: []*security.Match{{
			NotPrincipals: []*security.StringMatch{{MatchType: &security.StringMatch_Presence{}}}}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return authz.NewPolicies(p)
}

// The receiver's rows of the table in docs/decisions/0007: what becomes of a
// connection while one of its ends joins or leaves.
func TestWhatIsTakenWhileOneEndJoinsOrLeaves(t *testing.T) {
	const long, now = time.Hour, time.Duration(0)
	never := -long // not a change that this node saw
	for _, tc := range []struct {
		name string
		// destination is the pod's own protocol as this node knows it, since the time
		// ago; source the client's, nil for one that is not known.
		destination workload.Protocol
		since       time.Duration
		source      *workload.Protocol
		identity    spiffeid.ID
		taken       bool
		// leaves: the pod's own node hears a moment later that it left.
		leaves bool
	}{
		{"plaintext of a stranger", workload.HBONE, never, nil, spiffeid.ID{}, true, false},
		{"plaintext of a pod outside", workload.HBONE, never, protocol(workload.None), spiffeid.ID{}, true, false},
		{"plaintext of a member", workload.HBONE, never, protocol(workload.HBONE), spiffeid.ID{}, false, false},
		{"plaintext of a member that has not heard of the join", workload.HBONE, now, protocol(workload.HBONE), spiffeid.ID{}, true, false},
		{"plaintext of a member long after the join", workload.HBONE, long, protocol(workload.HBONE), spiffeid.ID{}, false, false},
		{"plaintext of a member to a pod that is captured and not announced, or leaves", workload.None, never, protocol(workload.HBONE), spiffeid.ID{}, true, false},
		{"plaintext of a member that heard first that the pod left", workload.HBONE, never, protocol(workload.HBONE), spiffeid.ID{}, true, true},
		{"plaintext of a pod outside to a pod that leaves", workload.None, never, protocol(workload.None), spiffeid.ID{}, true, false},
		{"a tunnel of a member", workload.HBONE, never, protocol(workload.HBONE), clientID, true, false},
		{"a tunnel of a member that joins or leaves", workload.HBONE, never, protocol(workload.None), clientID, true, false},
		{"a tunnel of a member that is not known yet", workload.HBONE, never, nil, clientID, true, false},
		{"a tunnel to a pod that leaves", workload.None, never, protocol(workload.HBONE), clientID, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			source := netip.MustParseAddr("10.0.0.9")
			own := *r.mesh.local
			own.Protocol = tc.destination
			r.mesh.local = &own
			if tc.since != never {
				r.mesh.joined = time.Now().Add(-tc.since)
			}
			if tc.source != nil {
				r.mesh.byAddr[source] = &workload.Workload{UID: "Kubernetes//Pod/shop/client", Name: "client", Namespace: "shop", Protocol: *tc.source}
			}
			if tc.leaves {
				out := own
				out.Protocol = workload.None
				r.mesh.left = make(chan *workload.Workload, 2)
				r.mesh.left <- &out
				r.mesh.left <- &out
			}
			err := r.proxy.Rehearse(t.Context(), source, tc.identity, r.app)
			var refusal *inbound.Refusal
			if tc.taken && err != nil || !tc.taken && (!errors.As(err, &refusal) || refusal.Status != 401) {
				t.Errorf("decided %v, want it taken: %v", err, tc.taken)
			}
			// No plaintext passes a policy that wants an identity, at any time.
			r.mesh.set(strict(t))
			err = r.proxy.Rehearse(context.Background(), source, tc.identity, r.app)
			if (err == nil) != !tc.identity.IsZero() {
				t.Errorf("under STRICT: %v", err)
			}
		})
	}
}

func protocol(p workload.Protocol) *workload.Protocol { return &p }
