package translate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/proto"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Who enforces a policy: decision 13. Node proxies enforce all that they ever did,
// on all that does not come from a waypoint which enforces the policy itself; so
// there is no moment at which one has stopped and the other not begun. What lets
// the waypoint through differs by the action:
//
//   - ALLOW policies add up, so the workloads behind a waypoint list one more that
//     allows the waypoint.
//   - DENY policies, and what stands for CUSTOM, except the waypoint in themselves.
//     Those of the root namespace do not, for whoever may make a Gateway would get
//     past the mesh's policies; of a class's there is an own one for each waypoint.

// servicePolicies are the policies that can apply to a service of a namespace.
type servicePolicies struct {
	bound     bindings
	own, root []*securityv1.AuthorizationPolicy // of the namespace, of the root namespace
}

// of returns the names of the policies that the service's waypoint enforces for
// it: those that are bound to it or to the waypoint, those of the whole namespace
// and mesh, and those whose selector takes all of its endpoints for certain. unsure
// are those whose selector may take some of them.
func (p servicePolicies) of(s *service) (enforced, unsure []string) {
	enforced = slices.Clone(p.bound.services[s.key])
	for _, w := range s.waypoints() {
		enforced = append(enforced, p.bound.gateways[w.name]...)
	}
	for _, list := range [][]*securityv1.AuthorizationPolicy{p.own, p.root} {
		for _, ap := range list {
			name, selector := ap.Namespace+"/"+ap.Name, ap.Spec.GetSelector().GetMatchLabels()
			switch {
			case bound(ap):
			case len(selector) == 0, len(s.selector) > 0 && subset(selector, s.selector):
				enforced = append(enforced, name)
			case !exclude(selector, s.selector):
				unsure = append(unsure, name)
			}
		}
	}
	slices.Sort(enforced)
	slices.Sort(unsure)
	return slices.Compact(enforced), slices.Compact(unsure)
}

// exclude reports whether no pod can have the labels of both selectors.
func exclude(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return true
		}
	}
	return false
}

// policyUse counts, by waypoint, the services for which it enforces a policy, and
// those for which it cannot know whether it should.
type policyUse struct{ enforced, unsure map[source.Name]int }

func (u *policyUse) empty() bool { return u == nil || len(u.enforced)+len(u.unsure) == 0 }

// aliases are those of the waypoints that enforce the policy, in order.
func (u *policyUse) aliases() []string {
	if u == nil {
		return nil
	}
	var out []string
	for name := range u.enforced {
		out = append(out, WaypointAlias(name))
	}
	slices.Sort(out)
	return out
}

// policyUses are those of all policies that a waypoint enforces.
type policyUses map[source.Name]*policyUse

// madeServices is what was made for waypoints of the services of one object.
type madeServices struct {
	names []string // of resources
	uses  []serviceUse
}

// serviceUse says which policies a waypoint enforces for one service.
type serviceUse struct {
	waypoint         source.Name
	enforced, unsure []string
	requests         []string // RequestAuthentications
	limits           []string // RateLimitPolicies
	sends            []string // services that requests go to
}

func (a serviceUse) equal(b serviceUse) bool {
	return a.waypoint == b.waypoint && slices.Equal(a.enforced, b.enforced) && slices.Equal(a.unsure, b.unsure) && slices.Equal(a.requests, b.requests) &&
		slices.Equal(a.limits, b.limits) && slices.Equal(a.sends, b.sends)
}

// count adds to, or takes from, the counts of the policies that use names, and
// marks those that another set of waypoints takes care of by now.
func (t *Translator) count(u *update, use serviceUse, by int) {
	t.countRequests(u, use, by)
	t.countLimits(u, use, by)
	t.destinations.count(use.waypoint, use.sends, by)
	for _, part := range []struct {
		policies []string
		counts   func(*policyUse) map[source.Name]int
	}{
		{use.enforced, func(p *policyUse) map[source.Name]int { return p.enforced }},
		{use.unsure, func(p *policyUse) map[source.Name]int { return p.unsure }},
	} {
		for _, text := range part.policies {
			name := policyName(text)
			p := t.uses[name]
			if p == nil {
				p = &policyUse{enforced: map[source.Name]int{}, unsure: map[source.Name]int{}}
				t.uses[name] = p
			}
			counts := part.counts(p)
			if was := counts[use.waypoint]; was == 0 || was+by == 0 {
				u.dirtyPolicies[name] = true
			}
			if counts[use.waypoint] += by; counts[use.waypoint] == 0 {
				delete(counts, use.waypoint)
			}
			if p.empty() {
				delete(t.uses, name)
			}
		}
	}
}

// policyName reads namespace/name.
func policyName(text string) source.Name {
	for i := range text {
		if text[i] == '/' {
			return source.Name{Namespace: text[:i], Name: text[i+1:]}
		}
	}
	return source.Name{Name: text}
}

// policiesToTranslate are those that changed, and those that other waypoints take
// care of, or waypoints that are otherwise by now.
func (t *Translator) policiesToTranslate(u *update) []source.Name {
	dirty := u.dirtyPolicies
	for _, name := range u.policies {
		dirty[name] = true
	}
	if u.all {
		for name := range t.uses {
			dirty[name] = true
		}
	}
	if u.all || len(u.namespaces) > 0 {
		for name, memo := range t.policies {
			if (u.all || u.namespaces[name.Namespace]) && bound(memo.policy) {
				dirty[name] = true
			}
		}
	}
	return slices.Collect(maps.Keys(dirty))
}

// trusted returns the principals of the waypoints that enforce the policy on all
// that they pass on to the workloads that it is for. One is trusted from before it
// is ready to after it has ended, so that neither end refuses what is on its way.
func (t *Translator) trusted(policy source.Name) []string {
	use := t.uses[policy]
	if use == nil || policy.Namespace == t.options.RootNamespace {
		return nil
	}
	var out []string
	for name := range use.enforced {
		if w := t.waypoints.byName[name]; w != nil && w.standing && use.unsure[name] == 0 {
			out = append(out, w.principal(t.options))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// partly tells of a policy whose selector takes some of the endpoints of services
// behind a waypoint, which must leave it to the node proxies.
func (t *Translator) partly(policy source.Name) []Warning {
	use := t.uses[policy]
	if use == nil {
		return nil
	}
	var at []string
	for name := range use.unsure {
		if w := t.waypoints.byName[name]; w != nil && w.ready {
			at = append(at, name.String())
		}
	}
	if len(at) == 0 {
		return nil
	}
	slices.Sort(at)
	return []Warning{{Object: "AuthorizationPolicy " + policy.String(), Message: fmt.Sprintf("its selector may take some of the pods of a service and not others: node proxies enforce it "+
		"on what comes through the waypoint %s as if that were who asks; bind it to the service by targetRefs, or let it select all", strings.Join(at, ", "))}}
}

// trust has a DENY policy of node proxies leave alone what these principals send.
func trust(a *apisecurity.Authorization, principals []string) {
	if len(principals) == 0 || a.Action != apisecurity.Action_DENY {
		return
	}
	for _, rule := range a.Rules {
		rule.Clauses = append(rule.Clauses, &apisecurity.Clause{Matches: []*apisecurity.Match{{NotPrincipals: texts(principals)}}})
	}
}

// classPolicy names what stands for a policy of a GatewayClass at the workloads
// behind one waypoint: the policy, but for what comes from that waypoint. The
// underscores cannot stand in the name of an object.
func classPolicy(policy source.Name, waypoint source.Name) source.Name {
	return source.Name{Namespace: policy.Namespace, Name: "waypoint_" + waypoint.Namespace + "_" + waypoint.Name + "_" + policy.Name}
}

// classPolicies makes them; a is the policy as node proxies know it.
func (t *Translator) classPolicies(ap *securityv1.AuthorizationPolicy, a *apisecurity.Authorization) []*Resource {
	var out []*Resource
	for _, key := range Targets(ap) {
		if key.Kind != "GatewayClass" || !deniesByClass(ap) {
			continue
		}
		for name, w := range t.waypoints.byName {
			if !w.standing || string(w.gateway.Spec.GatewayClassName) != key.Name.Name {
				continue
			}
			own := proto.CloneOf(a)
			own.Name = classPolicy(source.Name{Namespace: ap.Namespace, Name: ap.Name}, name).Name
			trust(own, []string{w.principal(t.options)})
			out = append(out, policyResource(own))
		}
	}
	return out
}

// deniesByClass reports whether a policy that may be bound to a class becomes a
// DENY at node proxies.
func deniesByClass(ap *securityv1.AuthorizationPolicy) bool {
	return enforced(ap) && ap.Spec.Action != security.AuthorizationPolicy_ALLOW
}

// admission is the policy that allows a waypoint.
func admission(o Options, w *waypoint) *Resource {
	return policyResource(&apisecurity.Authorization{
		Name: admissionName(w.name).Name, Namespace: w.name.Namespace, Scope: apisecurity.Scope_WORKLOAD_SELECTOR,
		Rules: []*apisecurity.Rule{{Clauses: []*apisecurity.Clause{{Matches: []*apisecurity.Match{{Principals: texts([]string{w.principal(o)})}}}}}},
	})
}

func admissionName(waypoint source.Name) source.Name {
	return source.Name{Namespace: waypoint.Namespace, Name: "waypoint_" + waypoint.Name}
}

// translateAdmissions makes one for each waypoint that stands.
func (t *Translator) translateAdmissions(u *update) {
	if !u.all {
		return
	}
	is := map[string]bool{}
	for _, w := range t.waypoints.byName {
		if w.standing {
			r := admission(t.options, w)
			is[r.Name] = true
			t.out.authorizations.set(r.Name, r)
		}
	}
	for name := range t.admissions {
		if !is[name] {
			t.out.authorizations.set(name, nil)
		}
	}
	t.admissions = is
}

// admitted returns the names of the policies that allow the waypoints before a
// workload of these services, to which the named policies apply: none when no
// policy keeps them out, for then one more would keep out all others; and not that
// of a waypoint which does not enforce all that allow something.
func (ns *namespace) admitted(services []*service, applied []string) []string {
	allowing := false
	for _, name := range applied {
		allowing = allowing || ns.allowing[name] || ns.bindings.allowing[name]
	}
	if !allowing && !ns.allows {
		return nil
	}
	var out, refused []string
	for _, s := range services {
		for _, w := range s.waypoints() {
			if !w.standing {
				continue
			}
			name := admissionName(w.name)
			text := name.Namespace + "/" + name.Name
			out = append(out, text)
			for _, policy := range applied {
				// What is bound to another service of the workload is not this one's.
				if _, found := slices.BinarySearch(s.enforced, policy); ns.allowing[policy] && !found {
					refused = append(refused, text)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(name string) bool { return slices.Contains(refused, name) })
}

// allowed reports whether a policy in force allows some and so keeps out others.
func allowed(ap *securityv1.AuthorizationPolicy) bool {
	dry, _ := strconv.ParseBool(ap.Annotations[source.AnnotationDryRun])
	return ap.Spec.Action == security.AuthorizationPolicy_ALLOW && !dry
}

// services returns those that an object defines.
func (t *Translator) services(key source.Key) []*service {
	if ns := t.namespaces[key.Namespace]; ns != nil {
		return ns.byKey[key]
	}
	return nil
}

// waypointPolicy is the policy for the waypoints with these aliases; nil when there
// are none.
func waypointPolicy(ap *securityv1.AuthorizationPolicy, auth *apiwaypoint.ExternalAuth, aliases []string) *Resource {
	if len(aliases) == 0 {
		return nil
	}
	p := &apiwaypoint.Policy{Namespace: ap.Namespace, Name: ap.Name, Action: waypointAction(ap.Spec.Action), Provider: ap.Spec.GetProvider().GetName(), ExternalAuth: auth}
	p.DryRun, _ = strconv.ParseBool(ap.Annotations[source.AnnotationDryRun])
	for _, rule := range ap.Spec.Rules {
		p.Rules = append(p.Rules, waypointRule(rule))
	}
	return &Resource{Name: ap.Namespace + "/" + ap.Name, Aliases: aliases, Body: p}
}

// waypointAction keeps an action that nobody knows what it is, which refuses.
func waypointAction(a security.AuthorizationPolicy_Action) apiwaypoint.Action {
	switch a {
	case security.AuthorizationPolicy_ALLOW:
		return apiwaypoint.Action_ALLOW
	case security.AuthorizationPolicy_DENY:
		return apiwaypoint.Action_DENY
	case security.AuthorizationPolicy_AUDIT:
		return apiwaypoint.Action_AUDIT
	case security.AuthorizationPolicy_CUSTOM:
		return apiwaypoint.Action_CUSTOM
	}
	return apiwaypoint.Action(a)
}

func waypointRule(rule *security.Rule) *apiwaypoint.PolicyRule {
	out := &apiwaypoint.PolicyRule{}
	for _, from := range rule.GetFrom() {
		s := from.GetSource()
		out.From = append(out.From, &apiwaypoint.Source{
			Principals: s.GetPrincipals(), NotPrincipals: s.GetNotPrincipals(),
			RequestPrincipals: s.GetRequestPrincipals(), NotRequestPrincipals: s.GetNotRequestPrincipals(),
			Namespaces: s.GetNamespaces(), NotNamespaces: s.GetNotNamespaces(),
			ServiceAccounts: s.GetServiceAccounts(), NotServiceAccounts: s.GetNotServiceAccounts(),
			IpBlocks: s.GetIpBlocks(), NotIpBlocks: s.GetNotIpBlocks(),
			RemoteIpBlocks: s.GetRemoteIpBlocks(), NotRemoteIpBlocks: s.GetNotRemoteIpBlocks(),
		})
	}
	for _, to := range rule.GetTo() {
		o := to.GetOperation()
		out.To = append(out.To, &apiwaypoint.Operation{
			Hosts: o.GetHosts(), NotHosts: o.GetNotHosts(), Ports: o.GetPorts(), NotPorts: o.GetNotPorts(),
			Methods: o.GetMethods(), NotMethods: o.GetNotMethods(), Paths: o.GetPaths(), NotPaths: o.GetNotPaths(),
		})
	}
	for _, c := range rule.GetWhen() {
		out.When = append(out.When, &apiwaypoint.Condition{Key: c.GetKey(), Values: c.GetValues(), NotValues: c.GetNotValues()})
	}
	return out
}
