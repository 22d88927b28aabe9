package translate

import (
	"maps"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// limitTarget is what a RateLimitPolicy is attached to; section is a route's rule.
type limitTarget struct {
	source.Key
	section string
}

// limitIndex finds the RateLimitPolicies of what they are attached to.
type limitIndex struct {
	targets map[source.Key]map[source.Name][]string // by target and policy, the sections
	all     map[source.Name]bool
	// remote are those that ask a service, which may come and go.
	remote map[source.Name]bool
}

func newLimitIndex() limitIndex {
	return limitIndex{targets: map[source.Key]map[source.Name][]string{}, all: map[source.Name]bool{}, remote: map[source.Name]bool{}}
}

func limitTargets(p *policyv1alpha1.RateLimitPolicy) []limitTarget {
	if p == nil {
		return nil
	}
	var out []limitTarget
	for _, ref := range p.Spec.TargetRefs {
		t := limitTarget{Key: source.Key{Kind: ref.Kind, Name: source.Name{Namespace: p.Namespace, Name: ref.Name}}}
		if ref.Kind == "Namespace" {
			if ref.Name != p.Namespace {
				continue // refused by its check
			}
			t.Namespace = ""
		}
		if ref.SectionName != nil {
			t.section = *ref.SectionName
		}
		out = append(out, t)
	}
	return out
}

// RateLimitTargets returns what a RateLimitPolicy is attached to.
func RateLimitTargets(p *policyv1alpha1.RateLimitPolicy) []source.Key {
	var keys []source.Key
	for _, t := range limitTargets(p) {
		keys = append(keys, t.Key)
	}
	return keys
}

// bindLimits takes in the policies that changed, and marks the services that they
// concern.
func (t *Translator) bindLimits(u *update, dirty map[source.Key]bool) {
	for _, name := range u.limits {
		was, is := t.objects.RateLimitPolicies[name], u.objects.RateLimitPolicies[name]
		for _, target := range limitTargets(was) {
			t.touchLimited(u, target.Key, dirty)
			delete(t.limits.targets[target.Key], name)
			if len(t.limits.targets[target.Key]) == 0 {
				delete(t.limits.targets, target.Key)
			}
		}
		delete(t.limits.all, name)
		delete(t.limits.remote, name)
		if is == nil {
			continue
		}
		t.limits.all[name] = true
		if b := is.Spec.Backend; b != nil && b.RateLimitService != nil {
			t.limits.remote[name] = true
		}
		for _, target := range limitTargets(is) {
			t.touchLimited(u, target.Key, dirty)
			if t.limits.targets[target.Key] == nil {
				t.limits.targets[target.Key] = map[source.Name][]string{}
			}
			t.limits.targets[target.Key][name] = append(t.limits.targets[target.Key][name], target.section)
		}
	}
}

// touchLimited marks the services, and the workloads behind waypoints of their own, that
// a target stands for.
func (t *Translator) touchLimited(u *update, target source.Key, dirty map[source.Key]bool) {
	t.touchPassed(u, target)
	switch target.Kind {
	case "Service", "ServiceEntry":
		dirty[target] = true
	case "Namespace":
		if ns := t.namespaces[target.Name.Name]; ns != nil {
			for key := range ns.byKey {
				dirty[key] = true
			}
		}
	case "Gateway":
		for key, made := range t.made {
			if slices.ContainsFunc(made.uses, func(use serviceUse) bool { return use.waypoint == target.Name }) {
				dirty[key] = true
			}
		}
	default:
		if memo := t.routes.memos[target]; memo != nil {
			for _, p := range memo.parents {
				dirty[p.Service] = true
			}
		}
	}
}

// at returns the names of the policies of a target, of a route those for one of its
// rules.
func (x *limitIndex) at(target source.Key, rule string) []string {
	var out []string
	for name, sections := range x.targets[target] {
		if slices.Contains(sections, "") || slices.Contains(sections, rule) {
			out = append(out, name.String())
		}
	}
	return out
}

// limit names the rate limits of a service and of the rules of its routes, and returns
// all of them.
func (t *Translator) limit(s *service, out *apiwaypoint.Service) []string {
	if len(t.limits.all) == 0 {
		return nil
	}
	out.RateLimits = slices.Concat(
		t.limits.at(source.Key{Kind: "Namespace", Name: source.Name{Name: s.key.Namespace}}, ""),
		t.limits.at(s.key, ""),
	)
	for _, w := range s.waypoints() {
		out.RateLimits = append(out.RateLimits, t.limits.at(source.Key{Kind: "Gateway", Name: w.name}, "")...)
	}
	slices.Sort(out.RateLimits)
	out.RateLimits = slices.Compact(out.RateLimits)
	used := slices.Clip(out.RateLimits)
	for _, port := range out.Ports {
		for _, table := range port.Routes {
			for _, rule := range table.Rules {
				ref := rule.GetRef()
				rule.RateLimits = t.limits.at(source.Key{Kind: ref.GetKind(), Name: source.Name{Namespace: ref.GetNamespace(), Name: ref.GetName()}}, ref.GetRule())
				slices.Sort(rule.RateLimits)
				used = append(used, rule.RateLimits...)
			}
		}
	}
	slices.Sort(used)
	return slices.Compact(used)
}

// countLimits is count for rate limits.
func (t *Translator) countLimits(u *update, use serviceUse, by int) {
	for _, text := range use.limits {
		name := policyName(text)
		counts := t.limitUses[name]
		if counts == nil {
			counts = map[source.Name]int{}
			t.limitUses[name] = counts
		}
		was := counts[use.waypoint]
		if was == 0 || was+by == 0 {
			u.dirtyLimits[name] = true
		}
		if counts[use.waypoint] += by; counts[use.waypoint] == 0 {
			delete(counts, use.waypoint)
		}
		if len(counts) == 0 {
			delete(t.limitUses, name)
		}
	}
}

// translateLimits makes the resources of policies that changed, that other waypoints
// enforce, or whose service may have changed.
func (t *Translator) translateLimits(u *update) {
	for _, name := range u.limits {
		u.dirtyLimits[name] = true
	}
	if u.all || len(u.namespaces) > 0 || len(u.grants) > 0 {
		for name := range t.limits.remote {
			u.dirtyLimits[name] = true
		}
	}
	if u.all && len(t.limits.all) > 0 || len(u.dirtyLimits) > 0 {
		t.out.warned = true
	}
	if len(u.dirtyLimits) == 0 {
		return
	}
	backends := NewBackends(u.objects, t.options)
	for name := range u.dirtyLimits {
		var aliases []string
		for waypoint := range t.limitUses[name] {
			aliases = append(aliases, WaypointAlias(waypoint))
		}
		slices.Sort(aliases)
		t.out.rateLimits.set(name.String(), rateLimit(u.objects.RateLimitPolicies[name], aliases, backends))
	}
}

// rateLimit is nil for one that is gone or that no waypoint needs.
func rateLimit(p *policyv1alpha1.RateLimitPolicy, aliases []string, backends *Backends) *Resource {
	if p == nil || len(aliases) == 0 {
		return nil
	}
	out := &apiwaypoint.RateLimit{
		Namespace: p.Namespace, Name: p.Name, Shadow: p.Spec.Shadow,
		FailOpen: p.Spec.FailureMode == nil || *p.Spec.FailureMode != policyv1alpha1.FailClosed,
	}
	r := &Resource{Name: p.Namespace + "/" + p.Name, Aliases: aliases, Body: out}
	if faults := source.RateLimitFaults(p); len(faults) > 0 {
		var texts []string
		for _, f := range faults {
			texts = append(texts, f.Error())
		}
		out.Fault = strings.Join(texts, "; ")
		return r
	}
	if p.Spec.Timeout != nil {
		out.Timeout = limitDuration(*p.Spec.Timeout)
	}
	var local bool
	out.Backend, local = limitBackend(p, backends)
	for i := range p.Spec.Rules {
		rule := limitRule(&p.Spec.Rules[i])
		rule.Local = rule.Local || local
		out.Rules = append(out.Rules, rule)
	}
	return r
}

// limitDuration reads what has been checked.
func limitDuration(d gatewayv1.Duration) *durationpb.Duration {
	v, _ := time.ParseDuration(string(d))
	return durationpb.New(v)
}

func limitBackend(p *policyv1alpha1.RateLimitPolicy, backends *Backends) (b *apiwaypoint.RateLimitBackend, local bool) {
	spec := p.Spec.Backend
	switch {
	case spec == nil || spec.Type == policyv1alpha1.BackendLeases:
		return &apiwaypoint.RateLimitBackend{Kind: &apiwaypoint.RateLimitBackend_Leases{Leases: true}}, false
	case spec.Type == policyv1alpha1.BackendRedis:
		redis := &apiwaypoint.RedisBackend{Address: spec.Redis.Address, Database: uint32(spec.Redis.Database), Tls: spec.Redis.TLS}
		if spec.Redis.Username != nil {
			redis.Username = *spec.Redis.Username
		}
		if spec.Redis.PasswordFile != nil {
			redis.PasswordFile = *spec.Redis.PasswordFile
		}
		return &apiwaypoint.RateLimitBackend{Kind: &apiwaypoint.RateLimitBackend_Redis{Redis: redis}}, false
	case spec.Type == policyv1alpha1.BackendService:
		service, port, fault := backends.Resolve(Referrer{Group: policyv1alpha1.GroupName, Kind: "RateLimitPolicy", Namespace: p.Namespace}, spec.RateLimitService.BackendRef)
		to := &apiwaypoint.Backend{Service: service, Port: port}
		if fault != nil {
			to.Fault = fault.Message
		}
		return &apiwaypoint.RateLimitBackend{Kind: &apiwaypoint.RateLimitBackend_Rls{
			Rls: &apiwaypoint.RateLimitService{Backend: to, Domain: spec.RateLimitService.Domain},
		}}, false
	}
	return nil, true
}

func limitRule(in *policyv1alpha1.RateLimitRule) *apiwaypoint.RateLimitRule {
	out := &apiwaypoint.RateLimitRule{Local: in.Local, Shadow: in.Shadow}
	if in.Name != nil {
		out.Name = *in.Name
	}
	for i := range in.Match {
		m := &in.Match[i]
		// Its values have been checked: there is no fault.
		ranked, _ := httpMatch(&gatewayv1.HTTPRouteMatch{Path: m.Path, Headers: m.Headers, QueryParams: m.QueryParams})
		match := &apiwaypoint.RateLimitMatch{Path: ranked.match.Path, Headers: ranked.match.Headers, Query: ranked.match.Query, Namespaces: m.Namespaces}
		for _, method := range m.Methods {
			match.Methods = append(match.Methods, string(method))
		}
		for _, p := range m.Principals {
			match.Principals = append(match.Principals, strings.TrimPrefix(p, "spiffe://"))
		}
		out.Match = append(out.Match, match)
	}
	for _, k := range in.Key {
		out.Key = append(out.Key, limitKey(k))
	}
	for _, l := range in.Limits {
		amount := &apiwaypoint.RateLimitAmount{Requests: uint64(l.Requests), Unit: limitDuration(l.Per)}
		if l.Burst != nil {
			amount.Burst = uint64(*l.Burst)
		}
		out.Limits = append(out.Limits, amount)
	}
	if c := in.Cost; c != nil {
		out.Cost = &apiwaypoint.RateLimitCost{}
		if c.RequestHeader != nil {
			out.Cost.RequestHeader = strings.ToLower(*c.RequestHeader)
		}
		if c.ResponseHeader != nil {
			out.Cost.ResponseHeader = strings.ToLower(*c.ResponseHeader)
		}
		if c.Default != nil {
			out.Cost.Default = uint64(*c.Default)
		}
	}
	return out
}

func limitKey(k policyv1alpha1.RateLimitKey) *apiwaypoint.RateLimitKey {
	out := &apiwaypoint.RateLimitKey{}
	if k.Default != nil {
		out.Default, out.HasDefault = *k.Default, true
	}
	name := ""
	if k.Name != nil {
		name = *k.Name
	}
	switch k.Type {
	case policyv1alpha1.KeyIdentity:
		out.Kind = &apiwaypoint.RateLimitKey_Identity{Identity: true}
	case policyv1alpha1.KeyServiceAccount:
		out.Kind = &apiwaypoint.RateLimitKey_ServiceAccount{ServiceAccount: true}
	case policyv1alpha1.KeyNamespace:
		out.Kind = &apiwaypoint.RateLimitKey_Namespace{Namespace: true}
	case policyv1alpha1.KeyHeader:
		out.Kind = &apiwaypoint.RateLimitKey_Header{Header: strings.ToLower(name)}
	case policyv1alpha1.KeyPath:
		out.Kind = &apiwaypoint.RateLimitKey_Path{Path: true}
	case policyv1alpha1.KeyMethod:
		out.Kind = &apiwaypoint.RateLimitKey_Method{Method: true}
	case policyv1alpha1.KeyHost:
		out.Kind = &apiwaypoint.RateLimitKey_Host{Host: true}
	case policyv1alpha1.KeyQueryParam:
		out.Kind = &apiwaypoint.RateLimitKey_Query{Query: name}
	case policyv1alpha1.KeySourceIP:
		out.Kind = &apiwaypoint.RateLimitKey_SourceIp{SourceIp: true}
	case policyv1alpha1.KeyJWTClaim:
		out.Kind = &apiwaypoint.RateLimitKey_JwtClaim{JwtClaim: name}
	}
	return out
}

// limitWarnings tell of limits that nobody enforces.
func (t *Translator) limitWarnings() []Warning {
	var out []Warning
	for name := range t.limits.all {
		ready := false
		for waypoint := range t.limitUses[name] {
			ready = ready || t.waypoints.Ready(waypoint)
		}
		object, targets := "RateLimitPolicy "+name.String(), RateLimitTargets(t.objects.RateLimitPolicies[name])
		missing := Missing(t.objects, targets)
		out = append(out, boundToNothing(object, missing)...)
		if !ready && len(missing) < len(targets) {
			out = append(out, Warning{Object: object, InStatus: true, Message: "only waypoints count requests, and none that is ready does by this: nothing is limited"})
		}
	}
	sortWarnings(out)
	return out
}

// RateLimiters returns the waypoints that enforce a policy, those that are ready, and
// the targets, of those that exist, of which the traffic passes by no waypoint.
func (x *Waypoints) RateLimiters(p *policyv1alpha1.RateLimitPolicy, routeParents func(source.Key) []source.Key) (ready []source.Name, without []source.Key) {
	found := map[source.Name]bool{}
	add := func(key source.Key) bool {
		obj := x.objects.Object(key)
		if obj == nil {
			return false
		}
		b, ok := x.Of(obj)
		if ok && b.Bound {
			found[b.Gateway] = true
		}
		return ok && b.Bound
	}
	for _, target := range RateLimitTargets(p) {
		any := false
		switch target.Kind {
		case "Service", "ServiceEntry":
			any = add(target)
		case "Gateway":
			if any = x.Ready(target.Name); any {
				found[target.Name] = true
			}
		case "Namespace":
			for _, kind := range []string{"Service", "ServiceEntry"} {
				for _, key := range x.objects.Keys(kind) {
					if key.Namespace == target.Name.Name && add(key) {
						any = true
					}
				}
			}
		default:
			for _, parent := range routeParents(target) {
				any = add(parent) || any
			}
		}
		if !any && len(Missing(x.objects, []source.Key{target})) == 0 {
			without = append(without, target)
		}
	}
	return slices.SortedFunc(maps.Keys(found), compareNames), without
}

// ParentsOf returns the services that a route is attached to.
func ParentsOf(objects *source.Objects, route source.Key) []source.Key {
	obj := objects.Object(route)
	if obj == nil {
		return nil
	}
	refs, _ := references(obj)
	var out []source.Key
	for _, p := range Parents(obj.GetNamespace(), refs) {
		out = append(out, p.Service)
	}
	return out
}
