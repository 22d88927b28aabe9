package outbound

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

func TestForwarded(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("[2001:db8::1]:4000")
	for _, tc := range []struct {
		client netip.AddrPort
		svc    *workload.Service
		want   string
	}{
		{v4, nil, `for="10.0.0.1:4000"`},
		{v6, nil, `for="[2001:db8::1]:4000"`},
		{v4, &workload.Service{Hostname: "web.shop.svc.cluster.local"}, `for="10.0.0.1:4000";host=web.shop.svc.cluster.local`},
		{v4, &workload.Service{Hostname: "bad\r\nname"}, `for="10.0.0.1:4000"`},
		{v4, &workload.Service{Hostname: "a;b"}, `for="10.0.0.1:4000"`},
	} {
		if got := forwarded(tc.client, tc.svc); got != tc.want {
			t.Errorf("%v %v: %q, want %q", tc.client, tc.svc, got, tc.want)
		}
	}
}

func TestTraceparent(t *testing.T) {
	form := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)
	a, b := traceparent(), traceparent()
	if !form.MatchString(a) || a == b || strings.Contains(a, strings.Repeat("0", 16)) {
		t.Errorf("traceparents %q, %q", a, b)
	}
}

func TestPeersOfAKeyAreReadBack(t *testing.T) {
	one := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/a")
	two := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/b")
	if joinPeers([]spiffeid.ID{two, one}) != joinPeers([]spiffeid.ID{one, two, one}) {
		t.Error("the order or a repetition changes the key")
	}
	got, err := splitPeers(joinPeers([]spiffeid.ID{two, one}))
	if err != nil || !slices.Equal(got, []spiffeid.ID{one, two}) {
		t.Errorf("read back %v, %v", got, err)
	}
	if _, err := splitPeers("nobody"); err == nil {
		t.Error("accepted a name that is no identity")
	}
}

func BenchmarkHeaders(b *testing.B) {
	client, svc := netip.MustParseAddrPort("10.0.0.1:4000"), &workload.Service{Hostname: "web.shop.svc.cluster.local"}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = forwarded(client, svc), traceparent()
	}
}
