package translate

import (
	"slices"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// FaultsAllowed reports whether the namespace of a FaultPolicy lets it have an
// effect.
func FaultsAllowed(objects *source.Objects, namespace string) bool {
	ns := objects.Namespaces[source.Name{Name: namespace}]
	return ns != nil && ns.Labels[policyv1alpha1.LabelAllowFaults] == "true"
}

// faults returns the filters of the FaultPolicies of a target: of all of it, or with a
// name those of that rule of a route as well.
func (b *Backends) faults(target source.Key, rule string) []*apiwaypoint.Filter {
	list := b.traffic().faults[target]
	if len(list) == 0 || !FaultsAllowed(b.objects, target.Namespace) {
		return nil
	}
	var out []*apiwaypoint.Filter
	for _, p := range list {
		if !slices.ContainsFunc(p.Spec.TargetRefs, func(t policyv1alpha1.TargetRef) bool {
			return t.Kind == target.Kind && t.Name == target.Name.Name && (t.SectionName == nil || rule != "" && *t.SectionName == rule)
		}) || len(source.FaultPolicyFaults(p)) > 0 {
			continue
		}
		if f := fault(p); f.Delay != nil || f.Abort != nil {
			out = append(out, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Fault{Fault: f}})
		}
	}
	return out
}

func fault(p *policyv1alpha1.FaultPolicy) *apiwaypoint.Fault {
	out := &apiwaypoint.Fault{Headers: headerMatches(p.Spec.Headers), Ref: &apiwaypoint.RouteRef{Kind: "FaultPolicy", Namespace: p.Namespace, Name: p.Name}}
	if d := p.Spec.Delay; d != nil {
		if hits, of, some := part(d.Share); some {
			delay := &apiwaypoint.FaultDelay{Numerator: hits, Denominator: of}
			set(&delay.Duration, &d.Duration)
			out.Delay = delay
		}
	}
	if a := p.Spec.Abort; a != nil {
		if hits, of, some := part(a.Share); some {
			out.Abort = &apiwaypoint.FaultAbort{Status: number(a.HTTPStatus), GrpcStatus: number(a.GRPCStatus), HasGrpcStatus: a.GRPCStatus != nil, Reset_: a.Reset,
				Numerator: hits, Denominator: of}
		}
	}
	return out
}

// part is how many of how many requests; some is false for none.
func part(s policyv1alpha1.Share) (hits, of uint32, some bool) {
	switch {
	case s.Fraction != nil:
		of = 100
		if d := s.Fraction.Denominator; d != nil {
			of = uint32(max(*d, 1))
		}
		hits = uint32(max(s.Fraction.Numerator, 0))
	case s.Percent != nil:
		hits, of = number(s.Percent), 100
	default:
		return 1, 1, true
	}
	return hits, of, hits > 0
}

// injectFaults puts the faults of a service before all that becomes of its requests;
// those without a rule get one that sends them on as before.
func (b *Backends) injectFaults(s *service, port *apiwaypoint.Port) {
	switch port.Protocol {
	case apiwaypoint.Protocol_HTTP1, apiwaypoint.Protocol_HTTP2, apiwaypoint.Protocol_GRPC:
	default:
		return
	}
	filters := b.faults(s.key, "")
	if len(filters) == 0 {
		return
	}
	for _, table := range port.Routes {
		for _, rule := range table.Rules {
			rule.Filters = slices.Concat(filters, rule.Filters)
		}
	}
	if slices.ContainsFunc(port.Routes, func(t *apiwaypoint.RouteTable) bool { return t.ClientNamespace == "" }) {
		return
	}
	port.Routes = slices.Insert(port.Routes, 0, &apiwaypoint.RouteTable{
		Rules: []*apiwaypoint.Rule{{
			Ref:     &apiwaypoint.RouteRef{Kind: s.key.Kind, Namespace: s.key.Namespace, Name: s.key.Name.Name},
			Filters: filters, Backends: []*apiwaypoint.Backend{{Service: s.resource.Name, Port: port.Port, Weight: 1}},
		}},
		Matches: []*apiwaypoint.Match{{}},
	})
}
