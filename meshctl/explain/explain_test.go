package explain_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/meshctl/explain"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
	ztunnel "github.com/tulle-mesh/tulle/ztunnel/explain"
)

// fake is a mesh whose ztunnels answer what a test wants.
type fake struct {
	pods     []mesh.Pod
	services []mesh.Service
	proxies  []*mesh.Component
	control  []*mesh.Component
	// waypoints are proxies of waypoints.
	waypoints []*mesh.Component
}

func (*fake) Local() bool       { return true }
func (*fake) String() string    { return "a test's mesh" }
func (*fake) Namespace() string { return "shop" }

func (f *fake) Components(_ context.Context, kind string) ([]*mesh.Component, error) {
	switch kind {
	case mesh.Ztunnel:
		return f.proxies, nil
	case mesh.Istiod:
		return f.control, nil
	case mesh.Waypoint:
		return f.waypoints, nil
	}
	return nil, nil
}

func (f *fake) Pods(context.Context, string) ([]mesh.Pod, error)         { return f.pods, nil }
func (f *fake) Services(context.Context, string) ([]mesh.Service, error) { return f.services, nil }

func (f *fake) Pod(_ context.Context, namespace, name string) (mesh.Pod, error) {
	for _, p := range f.pods {
		if p.Namespace == namespace && p.Name == name {
			return p, nil
		}
	}
	return mesh.Pod{}, &mesh.NotFoundError{Kind: "pod", Namespace: namespace, Name: name}
}

// proxy adds a ztunnel with its answers.
func (f *fake) proxy(node string, out ztunnel.OutboundAnswer, in map[string]ztunnel.InboundAnswer) {
	dump := mesh.Dump{Services: []state.ServiceDump{
		{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local", VIPs: []string{"/10.96.0.1"}, Ports: map[string]uint16{"80": 8080}},
		{Name: "two", Namespace: "shop", Hostname: "two.shop.svc.cluster.local", Ports: map[string]uint16{"80": 80, "443": 443}},
	}}
	f.proxies = append(f.proxies, mesh.NewComponent(mesh.Component{Kind: mesh.Ztunnel, Name: "ztunnel", Node: node, Ready: true},
		func(_ context.Context, _, path string) ([]byte, error) {
			u, err := url.Parse(path)
			if err != nil {
				return nil, err
			}
			switch u.Path {
			case "/config_dump":
				return json.Marshal(dump)
			case "/explain/outbound":
				out.Node = node
				return json.Marshal(out)
			case "/explain/inbound":
				key := u.Query().Get("server")
				if u.Query().Get("identity") == "" {
					key += " plaintext"
				}
				a, ok := in[key]
				if !ok {
					return nil, fmt.Errorf("nobody should ask for %s", key)
				}
				a.Node = node
				return json.Marshal(a)
			}
			return nil, fmt.Errorf("no page %s", path)
		}))
}

func workload(name, node, ip string) *ztunnel.Workload {
	return &ztunnel.Workload{UID: "Kubernetes//Pod/shop/" + name, Namespace: "shop", Name: name, Node: node, Protocol: "HBONE", Healthy: true, Pod: true,
		Identity: "spiffe://td/ns/shop/sa/" + name, Addresses: []netip.Addr{netip.MustParseAddr(ip)}}
}

func to(name, node, ip string, share float64) ztunnel.Way {
	return ztunnel.Way{Dest: netip.MustParseAddrPort("10.96.0.1:80"), Kind: "hbone", Target: netip.MustParseAddrPort(ip + ":15008"), Authority: ip + ":8080",
		Expected: []string{"spiffe://td/ns/shop/sa/" + name}, Upstream: netip.MustParseAddrPort(ip + ":8080"), Workload: workload(name, node, ip), Service: "shop/web.shop.svc.cluster.local", Share: share}
}

// itself is a way back to the client.
func itself(share float64) ztunnel.Way {
	w := to("client", "n1", "10.0.1.1", share)
	w.Kind, w.Target, w.Authority, w.Expected = "direct", w.Upstream, "", nil
	return w
}

var (
	clientPod = mesh.Pod{Namespace: "shop", Name: "client", Node: "n1", IPs: []string{"10.0.1.1"}, Phase: "Running", Ready: true, Member: true}
	outsider  = mesh.Pod{Namespace: "shop", Name: "client", Node: "n1", IPs: []string{"10.0.1.1"}, Phase: "Running", Ready: true, Outside: "its label says none"}
	captured  = ztunnel.OutboundAnswer{Captured: true, Client: workload("client", "n1", "10.0.1.1")}
	pass      = ztunnel.InboundAnswer{Captured: true, Allowed: true, Policy: "shop/ok", Policies: []ztunnel.Verdict{{Policy: "shop/ok", Action: "Allow", Matched: true, Decides: true, Reason: "rule 1 matches every connection"}}}
	deny      = ztunnel.InboundAnswer{Captured: true, Reason: "no", Policy: "shop/p", Policies: []ztunnel.Verdict{{Policy: "shop/p", Action: "Allow", Decides: true, Reason: "source principal is none"}}}
)

func with(ways ...ztunnel.Way) ztunnel.OutboundAnswer {
	a := captured
	a.Ways = ways
	return a
}

func TestOutcomes(t *testing.T) {
	strict := ztunnel.InboundAnswer{Captured: true, Reason: "denied by policy istio-system/istio_converted_static_strict", Policy: "istio-system/istio_converted_static_strict"}
	unmeshed := func(a ztunnel.OutboundAnswer) ztunnel.OutboundAnswer { a.Captured = false; return a }
	for _, tt := range []struct {
		name    string
		client  mesh.Pod
		out     ztunnel.OutboundAnswer
		in      map[string]ztunnel.InboundAnswer
		outcome explain.Outcome
		summary string
		advice  string
	}{
		{"allowed", clientPod, with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": pass}, explain.Allowed, "allowed by shop/ok", ""},
		{"refused by a policy", clientPod, with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": deny}, explain.Refused, "no", `source principal "td/ns/shop/sa/client"`},
		{"refused at one of two", clientPod, with(to("a", "n1", "10.0.1.2", .5), to("b", "n1", "10.0.1.3", .5)),
			map[string]ztunnel.InboundAnswer{"shop/a": pass, "shop/b": deny}, explain.Refused, "at 1 of 2 endpoints", ""},
		{"an endpoint that is not taken does not count", clientPod, with(to("a", "n1", "10.0.1.2", 1), ztunnel.Way{Kind: "deny", Reason: "not healthy", Workload: workload("b", "n1", "10.0.1.3")}),
			map[string]ztunnel.InboundAnswer{"shop/a": pass}, explain.Allowed, "", ""},
		{"no endpoints", clientPod, with(ztunnel.Way{Kind: "deny", Reason: "service shop/web: has no endpoints"}), nil, explain.Refused, "has no endpoints", "selector"},
		{"a pod that its node does not serve", clientPod, with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": {}}, explain.Refused, "nobody listens for the tunnel", "meshctl check"},
		{"a node without a ztunnel", clientPod, with(to("a", "n9", "10.0.9.2", 1)), nil, explain.Unknown, "no ztunnel runs on node n9", "n9"},
		{"past the mesh by choice", clientPod, with(ztunnel.Way{Kind: "passthrough", Target: netip.MustParseAddrPort("192.0.2.1:443"), Share: 1}), nil, explain.Allowed, "in plaintext", ""},
		{"a waypoint decides", clientPod, with(ztunnel.Way{Kind: "waypoint", Share: 1}), nil, explain.Unknown, "waypoint", ""},
		{"a client that nobody announced", clientPod, ztunnel.OutboundAnswer{Captured: true, Problem: "not announced"}, nil, explain.Unknown, "not announced", "in sync"},
		{"a client outside", outsider, unmeshed(with(to("a", "n1", "10.0.1.2", 1))), map[string]ztunnel.InboundAnswer{"shop/a plaintext": pass}, explain.Allowed, "in plaintext", ""},
		{"a client outside, under STRICT", outsider, unmeshed(with(to("a", "n1", "10.0.1.2", 1))), map[string]ztunnel.InboundAnswer{"shop/a plaintext": strict}, explain.Refused, "strict",
			"PeerAuthentication STRICT takes connections from members of the mesh only, and the client is none: its label says none"},
		{"a client that is on its way out", outsider, with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": pass}, explain.Unknown, "may go through it or past it", "joining or leaving the mesh right now"},
		{"the client itself", clientPod, with(itself(1)), nil, explain.Allowed, "the same pod", ""},
		{"the client itself and another", clientPod, with(itself(.5), to("a", "n1", "10.0.1.2", .5)), map[string]ztunnel.InboundAnswer{"shop/a": pass}, explain.Allowed,
			"encrypted, with both identities proved (but for the client itself, inside its pod); allowed by shop/ok", ""},
		{"a client that is captured and not served", clientPod, unmeshed(with(to("a", "n1", "10.0.1.2", 1))), nil, explain.Refused, "does not serve it", "tulle-agent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{pods: []mesh.Pod{tt.client}}
			f.proxy("n1", tt.out, tt.in)
			e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web"})
			if err != nil {
				t.Fatal(err)
			}
			if e.Outcome != tt.outcome || !strings.Contains(e.Summary, tt.summary) || !strings.Contains(strings.Join(e.Advice, "\n"), tt.advice) {
				t.Errorf("%s: %s; advice %q", e.Outcome, e.Summary, e.Advice)
			}
			sum := 0.0
			for _, w := range e.Ways {
				sum += w.Share
				if w.Outcome == "" || w.Outcome != explain.Allowed && w.Reason == "" {
					t.Errorf("way %+v", w)
				}
			}
			if e.Outcome == explain.Allowed && (sum < .99 || sum > 1.01) {
				t.Errorf("shares add up to %v", sum)
			}
		})
	}
}

// While one ztunnel takes over from another, the one that serves the pod answers.
func TestTheZtunnelThatServesThePodCounts(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	idle := with(to("a", "n1", "10.0.1.2", 1))
	idle.Captured = false
	f.proxy("n1", idle, map[string]ztunnel.InboundAnswer{"shop/a": {}})
	f.proxy("n1", with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": pass})
	e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web"})
	if err != nil || e.Outcome != explain.Allowed || !e.Client.Member {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod, {Namespace: "shop", Name: "waiting"}, {Namespace: "shop", Name: "done", Node: "n1", Phase: "Succeeded"}, {Namespace: "shop", Name: "far", Node: "n7"}},
		services: []mesh.Service{{Namespace: "shop", Name: "alias", ExternalName: "example.com"}, {Namespace: "shop", Name: "new"}, {Namespace: "data", Name: "db"}}}
	f.proxy("n1", captured, nil)
	for _, tt := range []struct{ client, server, want string }{
		{"nobody", "web", "no pod shop/nobody"},
		{"waiting", "web", "on no node yet"},
		{"done", "web", "has ended"},
		{"far", "web", "no ztunnel runs on node n7"},
		{"client", "two", "has the ports 80, 443: say which, as two:80"},
		{"client", "alias", "alias of example.com"},
		{"client", "new", "does not know it"},
		{"client", "db", "did you mean data/db?"},
		{"client", "nothing", "its services are alias, new, two, web"},
		{"client", "web:http", "port number"},
		{"client", "10.0.0.1", "say which port"},
		{"client", "client", "say which of its ports"},
	} {
		_, err := explain.Explain(t.Context(), f, explain.Request{Client: tt.client, Server: tt.server})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s → %s: %v, want %q", tt.client, tt.server, err, tt.want)
		}
	}
}

func TestServicesAreFoundByEveryNameThatClientsUse(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	f.proxy("n1", with(ztunnel.Way{Kind: "passthrough", Share: 1}), nil)
	for _, name := range []string{"web", "web:80", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local:80", "shop/web", "svc/web"} {
		e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: name})
		if err != nil || e.Server.Port != 80 || e.Server.Service != "shop/web.shop.svc.cluster.local" {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// Every port leads through the waypoint, and it serves those of the service alone.
func TestAPortThatAServiceBehindAWaypointDoesNotHaveIsRefused(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	f.proxy("n1", with(ztunnel.Way{Kind: "waypoint", Share: 1}), nil)
	e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web:99"})
	if err != nil || e.Outcome != explain.Refused || !strings.Contains(e.Summary, "has no port 99") || !strings.Contains(strings.Join(e.Advice, "\n"), "ports are 80") {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestARequestChangesNothingWhereNobodySeesIt(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	f.proxy("n1", with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": pass})
	for _, r := range []explain.HTTP{{}, {Path: "/x"}} {
		e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web", HTTP: r})
		if told := err == nil && strings.Contains(strings.Join(e.Advice, "\n"), "--path"); err != nil || told != (r.Path != "") {
			t.Errorf("%+v: %+v, %v", r, e, err)
		}
	}
}

// A waypoint on the node says nothing of the node's ztunnel.
func TestOnlyTheZtunnelsOwnConnectionShowsThatItIsInSync(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	f.proxy("n1", with(to("a", "n1", "10.0.1.2", 1)), map[string]ztunnel.InboundAnswer{"shop/a": pass})
	var clients []mesh.Client
	f.control = []*mesh.Component{mesh.NewComponent(mesh.Component{Kind: mesh.Istiod, Name: "istiod"}, func(context.Context, string, string) ([]byte, error) {
		return json.Marshal(mesh.Syncz{Clients: clients})
	})}
	waypoint := mesh.Client{Node: "waypoint~10.0.1.9~w.shop~shop.svc.cluster.local", Machine: "n1", Types: map[string]mesh.Watch{"a/tulle.waypoint.Service": {State: "SYNCED"}}}
	ztunnel := mesh.Client{Node: "ztunnel~10.0.1.8~z.istio-system~istio-system.svc.cluster.local", Machine: "n1", Types: map[string]mesh.Watch{"a/istio.workload.Address": {State: "SYNCED"}}}
	for want, all := range map[string][]mesh.Client{"": {waypoint}, "Address": {ztunnel, waypoint}} {
		clients = all
		e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web"})
		if err != nil || len(e.Proxies) != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		p := e.Proxies[0]
		if _, there := p.Types[want]; p.InSync != (want != "") || there != p.InSync || len(p.Types) > 1 {
			t.Errorf("%q: %+v", want, p)
		}
	}
}

// waypoint adds the proxy of a Gateway with its answer, and returns the way to it.
func (f *fake) waypoint(name, ip string, share float64, a explain.WaypointAnswer) ztunnel.Way {
	a.Gateway, a.Service, a.Port, a.Protocol = "shop/"+name, "shop/web.shop.svc.cluster.local", 80, "HTTP1"
	f.waypoints = append(f.waypoints, mesh.NewComponent(mesh.Component{Kind: mesh.Waypoint, Name: "shop/" + name, Node: "n1", Ready: true, Gateway: a.Gateway},
		func(context.Context, string, string) ([]byte, error) { return json.Marshal(a) }))
	w := to(name, "n1", ip, share)
	w.Kind = "waypoint"
	return w
}

func TestEveryWaypointBeforeAServiceIsAsked(t *testing.T) {
	shares := []ztunnel.WaypointShare{{Waypoint: "shop/second.shop.svc.cluster.local:15008", Share: .4}, {Waypoint: "shop/first.shop.svc.cluster.local:15008", Share: .6}}
	for _, tt := range []struct {
		name          string
		first, second explain.WaypointAnswer
		outcome       explain.Outcome
		summary       string
	}{
		{"both let it in", explain.WaypointAnswer{Allowed: true}, explain.WaypointAnswer{Allowed: true}, explain.Allowed, "through waypoint shop/second or shop/first"},
		{"one refuses", explain.WaypointAnswer{Allowed: true}, explain.WaypointAnswer{Reason: "no"}, explain.Refused, "at 1 of 2 waypoints: no"},
		{"an authorizer decides", explain.WaypointAnswer{Allowed: true}, explain.WaypointAnswer{Undecided: true, Reason: "provider sessions decides"}, explain.Unknown, "provider sessions decides"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{pods: []mesh.Pod{clientPod}}
			out := with(f.waypoint("second", "10.0.1.8", .4, tt.second), f.waypoint("first", "10.0.1.9", .6, tt.first))
			out.Service = &ztunnel.Service{Namespace: "shop", Hostname: "web.shop.svc.cluster.local", Ports: []uint16{80}, Waypoint: shares[1].Waypoint, Shares: shares}
			f.proxy("n1", out, nil)
			e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "web"})
			if err != nil {
				t.Fatal(err)
			}
			if e.Outcome != tt.outcome || !strings.Contains(e.Summary, tt.summary) || len(e.Server.Shares) != 2 || len(e.Ways) != 2 {
				t.Errorf("%s: %s; %+v", e.Outcome, e.Summary, e.Server)
			}
			for i, w := range e.Ways {
				if w.Waypoint == nil || w.Share != shares[i].Share {
					t.Errorf("way %d: %+v", i, w)
				}
			}
		})
	}
}

// A waypoint's page for explanations knows services.
func TestWhatAPodsOwnWaypointDecidesIsNotKnown(t *testing.T) {
	f := &fake{pods: []mesh.Pod{clientPod}}
	way := f.waypoint("pods", "10.0.1.9", 1, explain.WaypointAnswer{Allowed: true})
	way.Service = ""
	f.proxy("n1", with(way), nil)
	e, err := explain.Explain(t.Context(), f, explain.Request{Client: "client", Server: "10.0.1.2:8080"})
	if err != nil || e.Outcome != explain.Unknown || !strings.Contains(e.Summary, "waypoint shop/pods, which is for the pod itself") ||
		!strings.Contains(strings.Join(e.Advice, "\n"), "waypoint tap") || e.Ways[0].Waypoint != nil {
		t.Errorf("%+v, %v", e, err)
	}
}
