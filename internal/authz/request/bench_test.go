package request_test

import (
	"fmt"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
)

// policies is a mix as people write it, of which the last fits the shopper.
func policies(tb testing.TB, n int) request.Policies {
	var set request.Policies
	for i := range n - 1 {
		p := &api.Policy{Name: fmt.Sprint("p", i), Rules: []*api.PolicyRule{{
			From: []*api.Source{{Principals: []string{fmt.Sprintf("cluster.local/ns/shop/sa/client-%d", i)}}},
			To:   []*api.Operation{{Methods: []string{"GET", "HEAD"}, Paths: []string{fmt.Sprintf("/api/%d/*", i)}}},
		}}}
		if i%4 == 0 {
			p.Action = api.Action_DENY
			p.Rules = []*api.PolicyRule{{
				From: []*api.Source{{NotNamespaces: []string{"shop"}}},
				To:   []*api.Operation{{Paths: []string{fmt.Sprintf("/admin/%d*", i)}}},
			}}
		}
		set = set.With(compile(tb, p))
	}
	return set.With(compile(tb, &api.Policy{Name: "last", Rules: []*api.PolicyRule{{
		From: []*api.Source{{Namespaces: []string{"shop"}}},
		To:   []*api.Operation{{Methods: []string{"GET"}, Paths: []string{"/catalog/*"}}},
		When: []*api.Condition{{Key: "request.headers[x-tier]", Values: []string{"gold"}}},
	}}}))
}

func BenchmarkAuthorize(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			set, a := policies(b, n), shopper(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := set.Authorize(a, set.Consult(a)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("policies=100/of the peer", func(b *testing.B) {
		a := shopper(b)
		set := policies(b, 100).For(a.Peer)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := set.Authorize(a, set.Consult(a)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("folded", func(b *testing.B) {
		set, a := policies(b, 1), shopper(b)
		a.Request.Path = "/catalog//1"
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := set.Authorize(a, request.Consent{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAuthorizeDoesNotAllocate(t *testing.T) {
	set, a := policies(t, 100), shopper(t)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := set.Authorize(a, set.Consult(a)); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per decision", n)
	}
}
