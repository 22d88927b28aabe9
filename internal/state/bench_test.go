package state_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

const meshWorkloads, meshServices = 10000, 1000

func meshPod(i int) *api.Workload {
	a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	b := netip.AddrFrom16([16]byte{0xfd, 1, 14: byte(i >> 8), 15: byte(i)})
	return &api.Workload{
		Uid:  fmt.Sprintf("Kubernetes//Pod/ns-%d/web-%d-6f7d8c9b5-x%04d", i%50, i%meshServices, i),
		Name: fmt.Sprintf("web-%d-6f7d8c9b5-x%04d", i%meshServices, i), Namespace: fmt.Sprintf("ns-%d", i%50),
		Addresses:      [][]byte{a.AsSlice(), b.AsSlice()},
		TunnelProtocol: api.TunnelProtocol_HBONE, Node: fmt.Sprintf("node-%d", i%200),
		WorkloadName: fmt.Sprintf("web-%d", i%meshServices), CanonicalName: fmt.Sprintf("web-%d", i%meshServices),
		CanonicalRevision: "v1", ServiceAccount: fmt.Sprintf("web-%d", i%meshServices), ClusterId: "Kubernetes",
		Locality: &api.Locality{Region: "eu-west-1", Zone: fmt.Sprintf("eu-west-1%c", 'a'+i%3)},
		Services: map[string]*api.PortList{fmt.Sprintf("ns-%d/web-%d.ns-%d.svc.cluster.local", i%50, i%meshServices, i%50): {
			Ports: []*api.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 443, TargetPort: 8443}}}},
	}
}

func meshService(i int) *api.Service {
	return &api.Service{
		Name: fmt.Sprintf("web-%d", i), Namespace: fmt.Sprintf("ns-%d", i%50),
		Hostname:  fmt.Sprintf("web-%d.ns-%d.svc.cluster.local", i, i%50),
		Addresses: []*api.NetworkAddress{{Address: []byte{10, 96, byte(i >> 8), byte(i)}}},
		Ports:     []*api.Port{{ServicePort: 80, TargetPort: 8080}, {ServicePort: 443, TargetPort: 8443}},
	}
}

func mesh(t testing.TB) *state.Store {
	s := state.New(state.Config{})
	// As the control plane sends it: a large delta or several.
	var batch []proto.Message
	for i := range meshServices {
		batch = append(batch, meshService(i))
	}
	for i := range meshWorkloads {
		batch = append(batch, meshPod(i))
	}
	apply(t, s, batch...)
	return s
}

// A node holds the whole mesh, so that what it costs bounds the mesh.
func TestTenThousandWorkloadsFitInMemory(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := mesh(t)
	used := int64(heap()) - int64(before)
	t.Logf("%d workloads and %d services: %.1f MiB", meshWorkloads, meshServices, float64(used)/(1<<20))
	if used > 30<<20 {
		t.Errorf("more than 30 MiB")
	}
	if c := s.Snapshot().Counts(); c.Workloads != meshWorkloads || c.Services != meshServices {
		t.Errorf("holds %+v", c)
	}
}

// One change must not cost by the size of the mesh.
func BenchmarkApplyOneAmongTenThousand(b *testing.B) {
	s := mesh(b)
	h := s.AddressHandler()
	deltas := make([]xdsclient.Delta, 64)
	for i := range deltas {
		w := meshPod(rand.IntN(meshWorkloads))
		w.Status = api.WorkloadStatus(i % 2)
		deltas[i] = delta(b, w)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if r := h.Apply(deltas[i%len(deltas)]); r != nil {
			b.Fatal(r[0].Err)
		}
	}
}

// One service with ten thousand endpoints is the worst case of a balancer.
func BenchmarkEndpointsAt(b *testing.B) {
	s := state.New(state.Config{})
	var batch []proto.Message
	for i := range meshWorkloads {
		w := meshPod(i)
		w.Services = map[string]*api.PortList{"shop/web.shop.svc": {}}
		batch = append(batch, w)
	}
	e := apply(b, s, batch...).Endpoints(web)
	b.ReportAllocs()
	for b.Loop() {
		if e.At(rand.Uint64N(e.Weight(true)), true) == nil {
			b.Fatal("nobody")
		}
	}
}

func BenchmarkLookUp(b *testing.B) {
	snap := mesh(b).Snapshot()
	w := addr("10.1.20.7")
	vip := addr("10.96.2.7")
	key := workload.ServiceKey{Namespace: "ns-27", Hostname: "web-527.ns-27.svc.cluster.local"}
	for name, f := range map[string]func() bool{
		"WorkloadByAddr": func() bool { return snap.WorkloadByAddr("", w) != nil },
		"ServiceByVIP":   func() bool { return snap.ServiceByVIP("", vip) != nil },
		"Endpoints":      func() bool { return snap.Endpoints(key).Len() > 0 },
		"Policies":       func() bool { return snap.Policies(snap.WorkloadByAddr("", w)).Len() == 0 },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !f() {
					b.Fatal("not found")
				}
			}
		})
	}
}
