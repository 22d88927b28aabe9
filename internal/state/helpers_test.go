package state_test

import (
	"fmt"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	security "github.com/tulle-mesh/tulle/api/security"
	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

// pod is the wire form of a pod of the mesh in namespace shop.
func pod(name, ip string, change ...func(*api.Workload)) *api.Workload {
	w := &api.Workload{
		Uid: "Kubernetes//Pod/shop/" + name, Name: name, Namespace: "shop",
		TunnelProtocol: api.TunnelProtocol_HBONE, Node: "node-1",
		WorkloadName: "web", CanonicalName: "web", CanonicalRevision: "v1",
	}
	if ip != "" {
		w.Addresses = [][]byte{netip.MustParseAddr(ip).AsSlice()}
	}
	for _, f := range change {
		f(w)
	}
	return w
}

// in makes a pod an endpoint of shop/<name>.shop.svc on port 80 → 8080.
func in(services ...string) func(*api.Workload) {
	return func(w *api.Workload) {
		w.Services = map[string]*api.PortList{}
		for _, s := range services {
			w.Services["shop/"+s+".shop.svc"] = &api.PortList{Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}}}
		}
	}
}

func unhealthy(w *api.Workload) { w.Status = api.WorkloadStatus_UNHEALTHY }

func capacity(n uint32) func(*api.Workload) {
	return func(w *api.Workload) { w.Capacity = wrapperspb.UInt32(n) }
}

func service(name string, vips ...string) *api.Service {
	s := &api.Service{
		Name: name, Namespace: "shop", Hostname: name + ".shop.svc",
		Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}},
	}
	for _, v := range vips {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			a := netip.MustParseAddr(v)
			s.Addresses = append(s.Addresses, &api.NetworkAddress{Address: a.AsSlice()})
			continue
		}
		s.Addresses = append(s.Addresses, &api.NetworkAddress{Address: p.Addr().AsSlice(), Length: proto.Uint32(uint32(p.Bits()))})
	}
	return s
}

func pack(t testing.TB, name string, m proto.Message) xdsclient.Resource {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return xdsclient.Resource{Name: name, Version: "1", Body: body}
}

func resource(t testing.TB, m proto.Message) xdsclient.Resource {
	t.Helper()
	switch m := m.(type) {
	case *api.Workload:
		return pack(t, m.Uid, &api.Address{Type: &api.Address_Workload{Workload: m}})
	case *api.Service:
		return pack(t, m.Namespace+"/"+m.Hostname, &api.Address{Type: &api.Address_Service{Service: m}})
	case *security.Authorization:
		return pack(t, m.Namespace+"/"+m.Name, m)
	}
	t.Fatal(fmt.Sprintf("no resource is made of a %T", m))
	return xdsclient.Resource{}
}

func delta(t testing.TB, messages ...proto.Message) xdsclient.Delta {
	t.Helper()
	var d xdsclient.Delta
	for _, m := range messages {
		d.Resources = append(d.Resources, resource(t, m))
	}
	return d
}

// apply puts workloads and services; every one must be accepted.
func apply(t testing.TB, s *state.Store, messages ...proto.Message) *state.Snapshot {
	t.Helper()
	for _, r := range s.AddressHandler().Apply(delta(t, messages...)) {
		t.Fatalf("%s rejected: %v", r.Name, r.Err)
	}
	return s.Snapshot()
}

func remove(s *state.Store, names ...string) *state.Snapshot {
	s.AddressHandler().Apply(xdsclient.Delta{Removed: names})
	return s.Snapshot()
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pairOf(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
