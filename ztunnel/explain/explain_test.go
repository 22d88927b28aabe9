package explain_test

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/ztunnel/explain"
)

func mesh(t *testing.T, all ...*api.Address) *state.Snapshot {
	t.Helper()
	store := state.New(state.Config{})
	for _, a := range all {
		name := a.GetWorkload().GetUid()
		if svc := a.GetService(); svc != nil {
			name = svc.Namespace + "/" + svc.Hostname
		}
		body, err := anypb.New(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range store.AddressHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{{Name: name, Body: body}}}) {
			t.Fatal(r.Err)
		}
	}
	return store.Snapshot()
}

func pod(name, ips string, change ...func(*api.Workload)) *api.Address {
	w := &api.Workload{Uid: "Kubernetes//Pod/shop/" + name, Name: name, Namespace: "shop", ServiceAccount: name, TunnelProtocol: api.TunnelProtocol_HBONE}
	for _, a := range strings.Fields(ips) {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(a).AsSlice())
	}
	for _, c := range change {
		c(w)
	}
	return &api.Address{Type: &api.Address_Workload{Workload: w}}
}

func of(service string) func(*api.Workload) {
	return func(w *api.Workload) {
		w.Services = map[string]*api.PortList{"shop/" + service + ".shop.svc": {}}
	}
}

func service(name string, vips ...string) *api.Address {
	s := &api.Service{Name: name, Namespace: "shop", Hostname: name + ".shop.svc", Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}}}
	for _, v := range vips {
		s.Addresses = append(s.Addresses, &api.NetworkAddress{Address: netip.MustParseAddr(v).AsSlice()})
	}
	return &api.Address{Type: &api.Address_Service{Service: s}}
}

func key(name string) workload.ServiceKey {
	return workload.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc"}
}

func client(name string) explain.Name { return explain.Name{Namespace: "shop", Name: name} }

func TestAServiceIsDialledAsTheClientsFamilyResolvesIt(t *testing.T) {
	snap := mesh(t, pod("client", "fd00::1 10.0.0.1"), service("web", "10.96.0.1", "fd00:96::1"), pod("a", "10.0.0.2 fd00::2", of("web")))
	a := explain.Outbound(snap, explain.OutboundQuery{Client: client("client"), Service: key("web"), Port: 80}, "")
	if len(a.Ways) != 1 || a.Ways[0].Dest.String() != "[fd00:96::1]:80" || a.Ways[0].Upstream.String() != "[fd00::2]:8080" ||
		len(a.Ways[0].Expected) != 1 || a.Ways[0].Expected[0] != "spiffe://cluster.local/ns/shop/sa/a" || a.Service.Endpoints != 1 {
		t.Errorf("%+v", a)
	}
}

func TestAHeadlessServiceStandsForItsEndpoints(t *testing.T) {
	sick := func(w *api.Workload) { w.Status = api.WorkloadStatus_UNHEALTHY }
	snap := mesh(t, pod("client", "10.0.0.1"), service("db"), pod("db-0", "10.0.0.2", of("db")), pod("db-1", "10.0.0.3", of("db")),
		pod("db-2", "10.0.0.4", of("db"), sick))
	a := explain.Outbound(snap, explain.OutboundQuery{Client: client("client"), Service: key("db"), Port: 5432}, "")
	if len(a.Ways) != 2 || a.Ways[0].Upstream.String() != "10.0.0.2:5432" || a.Ways[1].Share != 0.5 || a.Problem != "" {
		t.Errorf("%+v", a)
	}
}

func TestWhatIsNotKnownIsAProblemAndNotAWay(t *testing.T) {
	snap := mesh(t, pod("client", "10.0.0.1"), service("empty"))
	for _, tt := range []struct {
		q    explain.OutboundQuery
		want string
	}{
		{explain.OutboundQuery{Client: client("nobody"), Service: key("empty")}, "not announced pod shop/nobody"},
		{explain.OutboundQuery{Client: client("client"), Service: key("gone")}, "not announced service shop/gone.shop.svc"},
		{explain.OutboundQuery{Client: client("client"), Service: key("empty"), Port: 80}, "no address of its own"},
	} {
		if a := explain.Outbound(snap, tt.q, ""); !strings.Contains(a.Problem, tt.want) || len(a.Ways) != 0 {
			t.Errorf("%+v: %+v", tt.q, a)
		}
	}
}

func TestNames(t *testing.T) {
	if n, err := explain.ParseName("shop/web-1"); err != nil || n.String() != "shop/web-1" {
		t.Errorf("%v, %v", n, err)
	}
	for _, bad := range []string{"", "web", "/web", "shop/", "a/b/c"} {
		if _, err := explain.ParseName(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
