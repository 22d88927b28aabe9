package translate

import (
	"maps"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// What a client addresses decides: what goes to a service takes the service's
// waypoint, and what goes to a workload's own address the workload's. Who enforces
// what is the same for both (decision 13); but a workload's labels are known, so
// that no selector leaves a doubt.

// passage is what a waypoint does with what is addressed to a workload itself. Its nil
// is that of a workload without a waypoint.
type passage struct {
	// service stands for the workload alone where its waypoint and policies count.
	service
}

// passage finds the waypoint of a workload with these labels, whose services are
// known. Pods of waypoints have none.
func (ns *namespace) passage(key source.Key, labels map[string]string, services []*service) *passage {
	asked, _ := ns.waypoints.bind(labels, ns.name, ns.object, forWorkload)
	if asked.waypoint == nil || key.Kind == "Pod" && ns.waypoints.ownPod(key.Name) {
		return nil
	}
	p := &passage{service{key: key, waypoint: asked.waypoint}}
	p.enforced = ns.atWaypoints.ofWorkload(ns, labels, services)
	p.requests = ns.tokenPolicies.ofWorkload(p.waypoint, labels, services)
	return p
}

// ownPod reports whether a pod is that of a waypoint.
func (x *Waypoints) ownPod(pod source.Name) bool {
	for name, w := range x.byName {
		if _, ok := x.pods[name][pod]; ok && w.name.Namespace == pod.Namespace {
			return true
		}
	}
	return false
}

// ofWorkload returns the names of all policies that apply to a workload, those of its
// services included: node proxies enforce them on what is addressed to it, and trust
// its waypoint with those that it enforces for anything.
func (p servicePolicies) ofWorkload(ns *namespace, labels map[string]string, services []*service) []string {
	enforced := slices.Clone(p.bound.atGateway(labels, ns.name, ns.object))
	for _, s := range services {
		enforced = slices.Concat(enforced, s.bound, s.enforced)
	}
	for _, list := range [][]*securityv1.AuthorizationPolicy{p.own, p.root} {
		for _, ap := range list {
			if !bound(ap) && subset(ap.Spec.GetSelector().GetMatchLabels(), labels) {
				enforced = append(enforced, ap.Namespace+"/"+ap.Name)
			}
		}
	}
	slices.Sort(enforced)
	return slices.Compact(enforced)
}

// ofWorkload returns the names of those that a workload's waypoint checks tokens by.
func (p serviceRequests) ofWorkload(w *waypoint, labels map[string]string, services []*service) []string {
	out := slices.Concat(p.bound.gateways[w.name], p.bound.classes[string(w.gateway.Spec.GatewayClassName)])
	for _, s := range services {
		out = slices.Concat(out, p.bound.services[s.key], s.requests)
	}
	for _, list := range [][]*securityv1.RequestAuthentication{p.own, p.root} {
		for _, ra := range list {
			if !boundRequest(ra) && subset(ra.Spec.GetSelector().GetMatchLabels(), labels) {
				out = append(out, ra.Namespace+"/"+ra.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// among adds what stands for the workload to its services.
func (p *passage) among(services []*service) []*service {
	if p == nil {
		return services
	}
	return append(slices.Clip(services), &p.service)
}

// lead has node proxies lead to the waypoint what is addressed to w.
func (p *passage) lead(o Options, w *apiworkload.Workload) {
	if p != nil && p.waypoint.ready {
		w.Waypoint = p.waypoint.address(o)
	}
}

// passed is what was made of a passage.
type passed struct {
	key source.Key
	use serviceUse
}

// pass makes what the waypoint of a workload does; p is nil without one.
func (t *Translator) pass(u *update, uid string, p *passage, w *apiworkload.Workload) {
	was, had := t.passed[uid]
	if p == nil && !had {
		return
	}
	if p == nil {
		t.out.services.set(uid, nil)
		delete(t.passed, uid)
		t.count(u, was.use, -1)
		return
	}
	out := &apiwaypoint.Service{Workload: uid, Policies: p.enforced, Authentications: p.requests, TrustedProxies: t.providers.config.TrustedProxies,
		Ports: spokenPorts(w)}
	out.RateLimits = slices.Concat(
		t.limits.at(source.Key{Kind: "Namespace", Name: source.Name{Name: p.key.Namespace}}, ""),
		t.limits.at(source.Key{Kind: "Gateway", Name: p.waypoint.name}, ""),
	)
	slices.Sort(out.RateLimits)
	out.RateLimits = slices.Compact(out.RateLimits)
	t.out.services.set(uid, &Resource{Name: uid, Aliases: []string{p.waypoint.alias()}, Body: out})
	is := passed{p.key, serviceUse{waypoint: p.waypoint.name, enforced: p.enforced, requests: p.requests, limits: out.RateLimits}}
	t.passed[uid] = is
	if had && was.use.equal(is.use) {
		return
	}
	t.count(u, is.use, 1)
	if had {
		t.count(u, was.use, -1)
	}
}

// spokenPorts are the workload's ports that a service says the protocol of: of
// several the first by name.
func spokenPorts(w *apiworkload.Workload) []*apiwaypoint.Port {
	spoken := map[uint32]apiwaypoint.Protocol{}
	for _, name := range slices.Sorted(maps.Keys(w.GetServices())) {
		for _, p := range w.GetServices()[name].GetPorts() {
			if is := protocol(servicePort{protocol: p.GetAppProtocol()}); is != apiwaypoint.Protocol_UNKNOWN && spoken[p.GetTargetPort()] == apiwaypoint.Protocol_UNKNOWN {
				spoken[p.GetTargetPort()] = is
			}
		}
	}
	var out []*apiwaypoint.Port
	for _, number := range slices.Sorted(maps.Keys(spoken)) {
		out = append(out, &apiwaypoint.Port{Port: number, Protocol: spoken[number]})
	}
	return out
}

// touchPassed marks the workloads that a target of rate limits stands for.
func (t *Translator) touchPassed(u *update, target source.Key) {
	for _, p := range t.passed {
		switch {
		case target.Kind == "Namespace" && p.key.Namespace == target.Name.Name, target.Kind == "Gateway" && p.use.waypoint == target.Name:
		default:
			continue
		}
		if p.key.Kind == "Pod" {
			u.dirtyPods[p.key.Name] = true
		} else {
			u.entries = append(u.entries, p.key.Name)
		}
	}
}
