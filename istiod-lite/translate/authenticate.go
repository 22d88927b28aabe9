package translate

import (
	"maps"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// What checks of tokens apply to a service is found as its policies are. Node
// proxies check none: without a waypoint nobody has a request principal, which
// policies that ask for one refuse (decision 4).

// boundRequest reports whether the authentication has targets. It is false for nil.
func boundRequest(ra *securityv1.RequestAuthentication) bool {
	return ra != nil && len(requestTargets(&ra.Spec)) > 0
}

func requestTargets(spec *security.RequestAuthentication) []*typev1beta1.PolicyTargetReference {
	if spec.TargetRef != nil {
		return append(slices.Clip(spec.TargetRefs), spec.TargetRef)
	}
	return spec.TargetRefs
}

// requestBindings says which RequestAuthentications are bound to what.
type requestBindings struct {
	services map[source.Key][]string
	gateways map[source.Name][]string
	classes  map[string][]string
}

func bindRequests(objects *source.Objects) requestBindings {
	b := requestBindings{services: map[source.Key][]string{}, gateways: map[source.Name][]string{}, classes: map[string][]string{}}
	for _, name := range slices.SortedFunc(maps.Keys(objects.RequestAuthentications), compareNames) {
		for _, ref := range requestTargets(&objects.RequestAuthentications[name].Spec) {
			at := source.Name{Namespace: name.Namespace, Name: ref.GetName()}
			switch kind := ref.GetKind(); kind {
			case "Service", "ServiceEntry":
				key := source.Key{Kind: kind, Name: at}
				b.services[key] = append(b.services[key], name.String())
			case "Gateway":
				b.gateways[at] = append(b.gateways[at], name.String())
			case "GatewayClass":
				b.classes[ref.GetName()] = append(b.classes[ref.GetName()], name.String())
			}
		}
	}
	return b
}

// serviceRequests are the RequestAuthentications that can apply to a service of a
// namespace.
type serviceRequests struct {
	bound     requestBindings
	own, root []*securityv1.RequestAuthentication
}

// of returns the names of those that the service's waypoint checks tokens by.
func (p serviceRequests) of(s *service) []string {
	out := slices.Clone(p.bound.services[s.key])
	for _, w := range s.waypoints() {
		out = slices.Concat(out, p.bound.gateways[w.name], p.bound.classes[string(w.gateway.Spec.GatewayClassName)])
	}
	for _, list := range [][]*securityv1.RequestAuthentication{p.own, p.root} {
		for _, ra := range list {
			selector := ra.Spec.GetSelector().GetMatchLabels()
			if !boundRequest(ra) && (len(selector) == 0 || len(s.selector) > 0 && subset(selector, s.selector)) {
				out = append(out, ra.Namespace+"/"+ra.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// translateRequests makes the resources of those that changed, or that other
// waypoints check tokens by.
func (t *Translator) translateRequests(u *update) {
	for _, name := range u.requests {
		u.dirtyRequests[name] = true
	}
	for name := range u.dirtyRequests {
		var aliases []string
		for waypoint := range t.requestUses[name] {
			aliases = append(aliases, WaypointAlias(waypoint))
		}
		slices.Sort(aliases)
		t.out.authentications.set(name.String(), waypointAuthentication(u.objects.RequestAuthentications[name], aliases))
	}
}

// waypointAuthentication is nil for one that is gone or that no waypoint needs.
func waypointAuthentication(ra *securityv1.RequestAuthentication, aliases []string) *Resource {
	if ra == nil || len(aliases) == 0 {
		return nil
	}
	out := &apiwaypoint.Authentication{Namespace: ra.Namespace, Name: ra.Name}
	for _, rule := range ra.Spec.JwtRules {
		out.Rules = append(out.Rules, tokenRule(rule))
	}
	return &Resource{Name: ra.Namespace + "/" + ra.Name, Aliases: aliases, Body: out}
}

func tokenRule(rule *security.JWTRule) *apiwaypoint.TokenRule {
	out := &apiwaypoint.TokenRule{
		Issuer: rule.GetIssuer(), Audiences: rule.GetAudiences(), FromParams: rule.GetFromParams(), FromCookies: rule.GetFromCookies(),
		OutputPayloadToHeader: strings.ToLower(rule.GetOutputPayloadToHeader()), ForwardOriginalToken: rule.GetForwardOriginalToken(),
		SpaceDelimitedClaims: rule.GetSpaceDelimitedClaims(),
	}
	switch {
	case rule.GetJwks() != "":
		out.Keys = &apiwaypoint.TokenRule_Jwks{Jwks: rule.GetJwks()}
	case rule.GetJwksUri() != "":
		out.Keys = &apiwaypoint.TokenRule_JwksUri{JwksUri: rule.GetJwksUri()}
	}
	// With neither, the issuer's metadata names the keys.
	for _, h := range rule.GetFromHeaders() {
		out.FromHeaders = append(out.FromHeaders, &apiwaypoint.TokenHeader{Name: strings.ToLower(h.GetName()), Prefix: h.GetPrefix()})
	}
	for _, h := range rule.GetOutputClaimToHeaders() {
		out.OutputClaimToHeaders = append(out.OutputClaimToHeaders, &apiwaypoint.ClaimHeader{Header: strings.ToLower(h.GetHeader()), Claim: h.GetClaim()})
	}
	if d := rule.GetTimeout(); d != nil {
		out.Timeout = durationpb.New(d.AsDuration())
	}
	return out
}

// countRequests is count for what waypoints check tokens by.
func (t *Translator) countRequests(u *update, use serviceUse, by int) {
	for _, text := range use.requests {
		name := policyName(text)
		counts := t.requestUses[name]
		if counts == nil {
			counts = map[source.Name]int{}
			t.requestUses[name] = counts
		}
		was := counts[use.waypoint]
		if was == 0 || was+by == 0 {
			u.dirtyRequests[name] = true
		}
		if counts[use.waypoint] += by; counts[use.waypoint] == 0 {
			delete(counts, use.waypoint)
		}
		if len(counts) == 0 {
			delete(t.requestUses, name)
		}
	}
}

// requestWarnings tell of checks of tokens that nobody does.
func (t *Translator) requestWarnings() []Warning {
	var out []Warning
	for name := range t.requests {
		ready := false
		for waypoint := range t.requestUses[name] {
			ready = ready || t.waypoints.Ready(waypoint)
		}
		object, targets := "RequestAuthentication "+name.String(), RequestTargets(t.objects.RequestAuthentications[name])
		missing := Missing(t.objects, targets)
		out = append(out, boundToNothing(object, missing)...)
		if !ready && (len(targets) == 0 || len(missing) < len(targets)) {
			out = append(out, Warning{Object: object, InStatus: len(targets) > 0, Message: "only waypoints check tokens, and none that is ready does by this: " +
				"requests with any token pass, and nobody has a request principal"})
		}
	}
	sortWarnings(out)
	return out
}
