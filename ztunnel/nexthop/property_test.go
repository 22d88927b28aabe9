package nexthop_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/nexthop"
)

// drawMesh makes a small mesh in which addresses collide, services overlap and
// waypoints may be missing.
func drawMesh(t *testing.T, rt *rapid.T) *mesh {
	m := newMesh(t)
	ip := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 6).Draw(t, "ip")) })
	names := []string{"x", "y", "wp"}
	gateway := rapid.Custom(func(t *rapid.T) *api.GatewayAddress {
		switch rapid.IntRange(0, 5).Draw(t, "gateway") {
		case 0:
			return hostname("wp")
		case 1:
			return address(ip.Draw(t, "gateway ip"))
		default:
			return nil
		}
	})
	for _, name := range []string{"client", "a", "b", "c"} {
		if name != "client" && !rapid.Bool().Draw(rt, "pod "+name) {
			continue
		}
		m.pod(name, ip.Draw(rt, "ip"), func(w *api.Workload) {
			w.TunnelProtocol = api.TunnelProtocol(rapid.SampledFrom([]int32{0, 1, 1, 1, 2}).Draw(rt, "protocol"))
			w.Status = api.WorkloadStatus(rapid.IntRange(0, 1).Draw(rt, "status"))
			w.Network = rapid.SampledFrom([]string{"", "", "", "east"}).Draw(rt, "network")
			w.Waypoint = gateway.Draw(rt, "waypoint")
			capacity(uint32(rapid.IntRange(0, 3).Draw(rt, "capacity")))(w)
			for _, s := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID).Draw(rt, "services") {
				var ports []*api.Port
				if rapid.Bool().Draw(rt, "own ports") {
					ports = append(ports, port(uint32(rapid.IntRange(80, 81).Draw(rt, "port")), uint32(rapid.SampledFrom([]int{0, 9, 15008}).Draw(rt, "target"))))
				}
				of(s, ports...)(w)
			}
		})
	}
	for _, name := range names {
		if !rapid.Bool().Draw(rt, "service "+name) {
			continue
		}
		m.service(name, rapid.SampledFrom([]string{"10.96.0.1", "10.96.0.2", "10.0.0.3", "10.0.0.4/30"}).Draw(rt, "vip"), func(s *api.Service) {
			s.Waypoint = gateway.Draw(rt, "waypoint")
			s.LoadBalancing = &api.LoadBalancing{
				Mode:         api.LoadBalancing_Mode(rapid.IntRange(0, 3).Draw(rt, "mode")),
				HealthPolicy: api.LoadBalancing_HealthPolicy(rapid.IntRange(0, 1).Draw(rt, "health")),
			}
			if rapid.Bool().Draw(rt, "preference") {
				s.LoadBalancing.RoutingPreference = []api.LoadBalancing_Scope{api.LoadBalancing_NODE}
			}
			if rapid.Bool().Draw(rt, "sans") {
				s.SubjectAltNames = []string{"spiffe://cluster.local/ns/shop/sa/extra"}
			}
			s.Visibility = api.Service_Visibility(rapid.IntRange(0, 1).Draw(rt, "visibility"))
		})
	}
	return m
}

func TestDecisionsNeverLeakAndAlwaysExplain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMesh(t, rt)
		snap := m.store.Snapshot()
		in := nexthop.Input{
			Source: snap.WorkloadByPod("shop", "client"),
			Dest: netip.AddrPortFrom(
				netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.96.0.1", "10.96.0.2", "10.7.7.7"}).Draw(rt, "dest")),
				uint16(rapid.SampledFrom([]int{80, 81, 9, 15008}).Draw(rt, "port"))),
			Pick: func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") },
		}
		d := nexthop.Decide(snap, in)
		fail := func(what string) { rt.Fatalf("%s: %s %+v", in.Dest, what, d) }
		known := snap.WorkloadByAddr("", in.Dest.Addr())
		svc := snap.ServiceByVIPFor("shop", "", in.Dest.Addr())

		if (d.Kind == nexthop.Deny) != (d.Reason != "") || (d.Kind == nexthop.Deny) == d.Target.IsValid() {
			fail("a denial has a reason and no target, and nothing else does")
		}
		if d.Kind.Tunnelled() != (len(d.Expected) > 0) || d.Kind.Tunnelled() != (d.Authority != "") {
			fail("a tunnel has an authority and expected peers, and nothing else does")
		}
		if d.Kind.Tunnelled() && !slices.Contains(d.Expected, d.Workload.Identity()) {
			fail("the chosen workload is not among the expected peers")
		}
		if d.Kind == nexthop.HBONE && d.Target.Port() != 15008 {
			fail("tunnel to another port")
		}
		if d.Kind == nexthop.Direct && d.Workload.Protocol == workload.HBONE && d.Workload != in.Source {
			fail("plaintext to a member of the mesh")
		}
		if d.Kind == nexthop.Passthrough && (known != nil || svc != nil && svc.LoadBalancing.Mode != workload.ModePassthrough) {
			fail("passed on although the mesh knows it")
		}
		if d.Kind == nexthop.Waypoint && d.Workload == in.Source {
			fail("a waypoint loops to itself")
		}
		if d.Workload != nil && d.Workload.Network != "" {
			fail("another network")
		}
		if svc != nil && d.Service != svc && d.Service != nil {
			fail("another service")
		}
		if balanced := svc != nil && svc.LoadBalancing.Mode != workload.ModePassthrough; balanced {
			if (d.Kind == nexthop.HBONE || d.Kind == nexthop.Direct) && !d.Workload.Healthy && !svc.LoadBalancing.AllowUnhealthy {
				fail("an endpoint that is not healthy")
			}
			if d.Kind == nexthop.HBONE && d.Upstream.Addr() != d.Target.Addr() {
				fail("tunnel to one pod, authority of another")
			}
		}
		if d.Kind == nexthop.HBONE && d.Upstream.Port() == 15008 {
			fail("a tunnel into the tunnel port")
		}
	})
}
