package upstream_test

import (
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestEndpointOf(t *testing.T) {
	key := workload.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc"}
	svc := &workload.Service{Namespace: key.Namespace, Hostname: key.Hostname}
	http, named := workload.Port{Service: 80, Target: 8080}, workload.Port{Service: 81}
	base := func() *workload.Workload {
		return &workload.Workload{
			UID: "uid", Namespace: "shop", ServiceAccount: "web", TrustDomain: "example.org", Node: "n", ClusterID: "c",
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
			Protocol:  workload.HBONE, Capacity: 3, Healthy: true, Locality: workload.Locality{Region: "eu"},
		}
	}
	e, why := upstream.EndpointOf(base(), svc, http, "", netip.Addr{})
	if why != "" || e.Addr.String() != "10.0.0.1:8080" || e.Weight != 3 || !e.Healthy || !e.Tunnelled ||
		e.Identity.String() != "spiffe://example.org/ns/shop/sa/web" || e.Place.Region != "eu" || e.Place.Node != "n" || e.Place.Cluster != "c" {
		t.Errorf("%+v, %s", e, why)
	}
	for _, c := range []struct {
		name   string
		port   workload.Port
		like   string
		change func(*workload.Workload)
		want   string
	}{
		{"the other family", http, "fd00::9", func(*workload.Workload) {}, "[fd00::1]:8080"},
		{"its own mapping", http, "10.0.0.9", func(w *workload.Workload) {
			w.Services = map[workload.ServiceKey][]workload.Port{key: {{Service: 80, Target: 9090}}}
		}, "10.0.0.1:9090"},
		{"a mapping that leaves it open", http, "10.0.0.9", func(w *workload.Workload) {
			w.Services = map[workload.ServiceKey][]workload.Port{key: {{Service: 80}}}
		}, "10.0.0.1:8080"},
		{"other ports only", http, "10.0.0.9", func(w *workload.Workload) {
			w.Services = map[workload.ServiceKey][]workload.Port{key: {{Service: 81, Target: 9090}}}
		}, "without this port"},
		{"a named port that nobody resolves", named, "10.0.0.9", func(*workload.Workload) {}, "without this port"},
		{"another network", http, "10.0.0.9", func(w *workload.Workload) { w.Network = "net-2" }, "in another network"},
		{"no address", http, "10.0.0.9", func(w *workload.Workload) { w.Addresses = nil }, "without an address"},
		{"a hostname", http, "10.0.0.9", func(w *workload.Workload) { w.Addresses, w.Hostname = nil, "db.example" }, "db.example:8080"},
	} {
		w := base()
		c.change(w)
		e, got := upstream.EndpointOf(w, svc, c.port, "", netip.MustParseAddr(c.like))
		if got == "" {
			got = e.String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
