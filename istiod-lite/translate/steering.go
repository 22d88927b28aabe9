package translate

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// steering is what changed of what operators write of traffic beside routes.
type steering struct {
	// hosts, resolved, are those of DestinationRules that changed, virtuals those of
	// VirtualServices.
	hosts, virtuals []string
	// backends are services whose policies changed, faulted the targets of
	// FaultPolicies that did.
	backends map[source.Key]bool
	faulted  []source.Key
	lookups  *Backends // of this state
}

// steer takes in an object that changed; either may be nil.
func (t *Translator) steer(u *update, key source.Key, was, is metav1.Object) {
	if u.backends == nil {
		u.backends = map[source.Key]bool{}
	}
	if key.Kind == "ConfigMap" {
		for _, p := range u.objects.BackendTLSPolicies {
			if p.Namespace == key.Namespace && slices.ContainsFunc(p.Spec.Validation.CACertificateRefs, func(ref gatewayv1.LocalObjectReference) bool { return string(ref.Name) == key.Name.Name }) {
				for _, target := range policyTargets(p) {
					u.backends[target] = true
				}
			}
		}
		return
	}
	t.traffic, t.out.warned = nil, true
	for _, obj := range []metav1.Object{was, is} {
		switch o := obj.(type) {
		case *networkingv1.DestinationRule:
			u.hosts = append(u.hosts, RuleHost(o, t.options))
		case *networkingv1.VirtualService:
			for _, host := range o.Spec.GetHosts() {
				u.virtuals = append(u.virtuals, t.options.fqdn(host, o.Namespace))
			}
		case nil:
		default:
			for _, target := range policyTargets(o) {
				if key.Kind == "FaultPolicy" {
					u.faulted = append(u.faulted, target)
				} else {
					u.backends[target] = true
				}
			}
		}
	}
}

// backends looks things up in the state that is being translated.
func (t *Translator) backends(u *update) *Backends {
	if u.lookups == nil {
		if t.traffic == nil {
			t.traffic = trafficOf(u.objects, t.options)
		}
		u.lookups = NewBackends(u.objects, t.options)
		u.lookups.written = t.traffic
	}
	return u.lookups
}

// steered marks the services on whose traffic something else decides by now than
// routes and their backends.
func (t *Translator) steered(u *update, b *Backends, dirty map[source.Key]bool) {
	hosts := u.virtuals
	if len(u.namespaces) > 0 {
		for _, vs := range u.objects.VirtualServices {
			if u.all || t.leads(u, b, vs) {
				for _, host := range vs.Spec.GetHosts() {
					hosts = append(hosts, t.options.fqdn(host, vs.Namespace))
				}
			}
		}
		for _, p := range u.objects.FaultPolicies {
			if u.namespaces[p.Namespace] { // whose label allows them or not
				u.faulted = append(u.faulted, policyTargets(p)...)
			}
		}
	}
	var search []string
	for _, host := range hosts {
		if name, ok := t.options.serviceOf(host); ok && host[0] != '*' {
			dirty[source.Key{Kind: "Service", Name: name}] = true
		} else if !slices.Contains(search, host) {
			search = append(search, host)
		}
	}
	if len(search) > 0 {
		for _, ns := range t.namespaces {
			for _, s := range ns.services {
				if slices.ContainsFunc(search, func(host string) bool { return hostFits(host, s.proto.GetHostname()) }) {
					dirty[s.key] = true
				}
			}
		}
	}
	for _, target := range u.faulted {
		if memo := t.routes.memos[target]; memo != nil {
			for _, p := range memo.parents {
				dirty[p.Service] = true
			}
		} else {
			dirty[target] = true
		}
	}
}

// leads reports whether a VirtualService has a destination in what changed: a Service
// of a namespace, or any ServiceEntry, since a host may be one's of any namespace.
func (t *Translator) leads(u *update, b *Backends, vs *networkingv1.VirtualService) bool {
	to := func(host string) bool {
		name, ok := t.options.serviceOf(t.options.fqdn(host, vs.Namespace))
		return !ok || u.namespaces[name.Namespace]
	}
	for _, r := range vs.Spec.GetHttp() {
		for _, d := range r.GetRoute() {
			if to(d.GetDestination().GetHost()) {
				return true
			}
		}
		for _, m := range virtualMirrors(r) {
			if to(m.to.GetHost()) {
				return true
			}
		}
	}
	for _, r := range vs.Spec.GetTls() {
		for _, d := range r.GetRoute() {
			if to(d.GetDestination().GetHost()) {
				return true
			}
		}
	}
	for _, r := range vs.Spec.GetTcp() {
		for _, d := range r.GetRoute() {
			if to(d.GetDestination().GetHost()) {
				return true
			}
		}
	}
	return false
}

// virtual adds to a port what a VirtualService says, for clients on whom no route of
// the Gateway API decides.
func (b *Backends) virtual(s *service, port servicePort, out *apiwaypoint.Port) {
	list := b.traffic().virtualServices(s.waypoint.name.Namespace, s.key.Namespace, s.proto.GetHostname())
	if len(list) == 0 || slices.ContainsFunc(out.Routes, func(t *apiwaypoint.RouteTable) bool { return t.ClientNamespace == "" }) {
		return
	}
	for _, table := range virtualTables(list[0], port, out.Protocol, b) {
		if !slices.ContainsFunc(out.Routes, func(t *apiwaypoint.RouteTable) bool { return t.ClientNamespace == table.ClientNamespace }) {
			out.Routes = append(out.Routes, table)
		}
	}
	slices.SortFunc(out.Routes, func(x, y *apiwaypoint.RouteTable) int {
		if x.ClientNamespace < y.ClientNamespace {
			return -1
		}
		return 1
	})
}

// trafficWarnings tells of what DestinationRules and VirtualServices say and waypoints
// do not do. Without a waypoint nobody minds them.
func (t *Translator) trafficWarnings() []Warning {
	if len(t.waypoints.byName) == 0 {
		return nil
	}
	var out []Warning
	note := func(key source.Key, gaps []string) {
		for _, gap := range gaps {
			out = append(out, Warning{Object: key.String(), InStatus: true, Message: gap})
		}
	}
	for name, dr := range t.objects.DestinationRules {
		note(source.Key{Kind: "DestinationRule", Name: name}, RuleGaps(dr))
	}
	for name, vs := range t.objects.VirtualServices {
		note(source.Key{Kind: "VirtualService", Name: name}, VirtualGaps(vs))
	}
	return out
}
