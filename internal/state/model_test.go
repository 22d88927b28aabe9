package state_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// The store is compared, after every step of a random history, with maps that
// are searched from end to end. Snapshots along the way must not change.
func TestStoreAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := state.New(state.Config{})
		workloads, services := map[string]*api.Workload{}, map[string]*api.Service{}
		var kept *state.Snapshot
		var keptView string
		ip := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 3).Draw(t, "ip")) })
		name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		host := rapid.SampledFrom([]string{"x", "y"})
		steps := rapid.IntRange(1, 25).Draw(rt, "steps")
		for range steps {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0, 1:
				w := pod(name.Draw(rt, "pod"), ip.Draw(rt, "ip"), in(rapid.SliceOfN(host, 0, 2).Draw(rt, "services")...))
				if rapid.Bool().Draw(rt, "sick") {
					unhealthy(w)
				}
				if rapid.Bool().Draw(rt, "plain") {
					w.TunnelProtocol = api.TunnelProtocol_NONE
				}
				w.NetworkMode = api.NetworkMode(rapid.IntRange(0, 1).Draw(rt, "host network"))
				capacity(uint32(rapid.IntRange(0, 3).Draw(rt, "capacity")))(w)
				apply(t, s, w)
				workloads[w.Uid] = w
			case 2:
				svc := service(host.Draw(rt, "service"), ip.Draw(rt, "vip"),
					rapid.SampledFrom([]string{"10.0.0.0/30", "10.0.0.2/31", "10.0.0.3"}).Draw(rt, "range"))
				svc.Canonical = rapid.Bool().Draw(rt, "canonical")
				apply(t, s, svc)
				services["shop/"+svc.Hostname] = svc
			case 3:
				uid := "Kubernetes//Pod/shop/" + name.Draw(rt, "pod")
				remove(s, uid)
				delete(workloads, uid)
			case 4:
				key := "shop/" + host.Draw(rt, "service") + ".shop.svc"
				remove(s, key)
				delete(services, key)
			}
			if kept == nil && rapid.Bool().Draw(rt, "keep") {
				kept = s.Snapshot()
				keptView = view(kept)
			}
		}
		if got, want := view(s.Snapshot()), modelView(workloads, services); got != want {
			rt.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		if kept != nil && view(kept) != keptView {
			rt.Fatalf("a snapshot changed from\n%s\nto\n%s", keptView, view(kept))
		}
	})
}

var viewAddrs = []string{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"}

// view tells everything that a snapshot answers.
func view(s *state.Snapshot) string {
	var out strings.Builder
	for _, a := range viewAddrs {
		w, svc := "-", "-"
		if x := s.WorkloadByAddr("", addr(a)); x != nil {
			w = x.Name
		}
		if x := s.ServiceByVIP("", addr(a)); x != nil {
			svc = x.Name
		}
		fmt.Fprintf(&out, "%s: %s %s\n", a, w, svc)
	}
	for _, host := range []string{"x", "y"} {
		e := s.Endpoints(workload.ServiceKey{Namespace: "shop", Hostname: host + ".shop.svc"})
		fmt.Fprintf(&out, "%s: %v healthy %d weight %d %d", host, uids(e), e.Healthy(), e.Weight(false), e.Weight(true))
		for _, healthy := range []bool{false, true} {
			out.WriteString(" |")
			for n := range e.Weight(healthy) {
				out.WriteString(" " + e.At(n, healthy).Name)
			}
			if e.At(e.Weight(healthy), healthy) != nil {
				out.WriteString(" and one too many")
			}
		}
		out.WriteString("\n")
	}
	fmt.Fprintln(&out, s.Counts())
	return out.String()
}

func modelView(workloads map[string]*api.Workload, services map[string]*api.Service) string {
	var out strings.Builder
	for _, a := range viewAddrs {
		var found []*workload.Workload
		for _, m := range workloads {
			w, _, _ := workload.FromProto(&api.Address{Type: &api.Address_Workload{Workload: m}})
			if !w.HostNetwork && slices.Contains(w.Addresses, addr(a)) {
				found = append(found, w)
			}
		}
		w := "-"
		for _, x := range found {
			best := true
			for _, y := range found {
				best = best && (x == y || workload.Preferred(x, y))
			}
			if best {
				w = x.Name
			}
		}
		svc, bits := "-", -1
		canonical := false
		for _, key := range slices.Sorted(keys(services)) {
			_, x, _ := workload.FromProto(&api.Address{Type: &api.Address_Service{Service: services[key]}})
			for _, v := range x.VIPs {
				if !v.Prefix.Contains(addr(a)) {
					continue
				}
				if b := v.Prefix.Bits(); b > bits || b == bits && x.Canonical && !canonical {
					svc, bits, canonical = x.Name, b, x.Canonical
				}
			}
		}
		fmt.Fprintf(&out, "%s: %s %s\n", a, w, svc)
	}
	for _, host := range []string{"x", "y"} {
		var names, all, well []string
		healthy := 0
		for _, uid := range slices.Sorted(keys(workloads)) {
			w := workloads[uid]
			if w.Services["shop/"+host+".shop.svc"] == nil {
				continue
			}
			names = append(names, w.Name)
			if w.Status == api.WorkloadStatus_HEALTHY {
				healthy++
			}
			for range w.Capacity.GetValue() {
				all = append(all, " "+w.Name)
				if w.Status == api.WorkloadStatus_HEALTHY {
					well = append(well, " "+w.Name)
				}
			}
		}
		fmt.Fprintf(&out, "%s: %v healthy %d weight %d %d |%s |%s\n", host, names, healthy, len(all), len(well),
			strings.Join(all, ""), strings.Join(well, ""))
	}
	fmt.Fprintln(&out, state.Counts{Workloads: len(workloads), Services: len(services)})
	return out.String()
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
