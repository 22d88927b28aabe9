package translate

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/types/known/emptypb"

	apisecurity "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// enforced reports whether node proxies enforce the policy. AUDIT denies nobody,
// and nobody keeps the audit.
func enforced(ap *securityv1.AuthorizationPolicy) bool {
	return ap.Spec.Action != security.AuthorizationPolicy_AUDIT
}

// authorization returns nil and a warning for a policy that no node proxy
// enforces. trusted are the principals of waypoints that enforce it themselves:
// what comes from them has been decided on, by who it first came from. covered
// says that all that the policy is bound to is behind a waypoint which is ready, and
// fault why the provider of a CUSTOM policy cannot be asked; adrift says that nothing of
// it exists.
func authorization(o Options, ap *securityv1.AuthorizationPolicy, trusted []string, covered, adrift bool, fault string) (*apisecurity.Authorization, []Warning) {
	object := "AuthorizationPolicy " + ap.Namespace + "/" + ap.Name
	if !enforced(ap) && covered {
		return nil, nil
	}
	if !enforced(ap) {
		return nil, []Warning{{Object: object, InStatus: true, Message: "action AUDIT has no effect: nobody keeps the audit, and no connection is denied for it"}}
	}
	a := &apisecurity.Authorization{Name: ap.Name, Namespace: ap.Namespace, Scope: apisecurity.Scope_NAMESPACE}
	switch {
	case picks(ap):
		a.Scope = apisecurity.Scope_WORKLOAD_SELECTOR
	case ap.Namespace == o.RootNamespace:
		a.Scope = apisecurity.Scope_GLOBAL
	}
	if ap.Spec.Action != security.AuthorizationPolicy_ALLOW {
		a.Action = apisecurity.Action_DENY
	}
	a.DryRun, _ = strconv.ParseBool(ap.Annotations[source.AnnotationDryRun])
	r := &ruleTranslation{namespace: ap.Namespace, trustDomain: o.TrustDomain, deny: a.Action == apisecurity.Action_DENY}
	for _, rule := range ap.Spec.Rules {
		if out := r.rule(rule); out != nil {
			a.Rules = append(a.Rules, out)
		}
	}
	trust(a, trusted)
	var warnings []Warning
	if bound(ap) && !covered && !adrift {
		warnings = append(warnings, Warning{Object: object, InStatus: true, Message: "it is bound by targetRefs to waypoints, which do not run yet: " +
			"the node proxies enforce it for all connections to the pods behind its targets, and what only a waypoint can decide makes it stricter"})
	}
	switch {
	case covered && fault != "":
		warnings = append(warnings, Warning{Object: object, InStatus: true, Message: fault + ": requests that it would be asked about are refused"})
	case covered: // what follows is for the waypoint to say
	case ap.Spec.Action == security.AuthorizationPolicy_CUSTOM:
		warnings = append(warnings, Warning{Object: object, InStatus: true, Message: "only waypoints ask external authorizers: connections that its provider would be asked about are denied"})
	case ap.Spec.Action == security.AuthorizationPolicy_DENY:
		if len(ap.Spec.Rules) == 0 {
			warnings = append(warnings, Warning{Object: object, Message: "DENY without rules denies nothing; rules: [{}] denies everything"})
		}
	}
	if len(r.foreign) > 0 {
		slices.Sort(r.foreign)
		warnings = append(warnings, Warning{Object: object, Message: fmt.Sprintf("nobody has the principals %s: identities of this mesh are in the trust domain %s",
			strings.Join(slices.Compact(r.foreign), ", "), o.TrustDomain)})
	}
	if len(r.unknown) == 0 || covered {
		return a, warnings
	}
	slices.Sort(r.unknown)
	consequence := "rules of the ALLOW policy with them are left out, so that it allows less than it says"
	if r.deny {
		consequence = "the DENY policy is enforced as if they matched, so that it denies more than it says"
	}
	return a, append(warnings, Warning{Object: object, InStatus: true, Message: fmt.Sprintf("conditions on %s need a waypoint; %s", strings.Join(slices.Compact(r.unknown), ", "), consequence)})
}

// ruleTranslation collects what a node proxy cannot decide on.
type ruleTranslation struct {
	namespace   string
	trustDomain string
	deny        bool
	unknown     []string
	foreign     []string // principals that nobody in the mesh can have
}

// rule returns nil for a rule that must be left out. A Rule without clauses
// matches everything.
func (t *ruleTranslation) rule(rule *security.Rule) *apisecurity.Rule {
	before := len(t.unknown)
	out := &apisecurity.Rule{}
	add := func(matches []*apisecurity.Match) {
		// An empty Match never matches on the wire. Here it is one whose every
		// condition counts as met, and then so does the clause: leave it out.
		if len(matches) > 0 && !slices.ContainsFunc(matches, emptyMatch) {
			out.Clauses = append(out.Clauses, &apisecurity.Clause{Matches: matches})
		}
	}
	var to, from []*apisecurity.Match
	for _, e := range rule.GetTo() {
		to = append(to, t.operation(e.GetOperation()))
	}
	for _, e := range rule.GetFrom() {
		from = append(from, t.source(e.GetSource()))
	}
	add(to)
	add(from)
	for _, c := range rule.GetWhen() {
		add([]*apisecurity.Match{t.condition(c)})
	}
	if !t.deny && len(t.unknown) > before {
		return nil
	}
	return out
}

func emptyMatch(m *apisecurity.Match) bool {
	return len(m.Namespaces)+len(m.NotNamespaces)+len(m.Principals)+len(m.NotPrincipals)+len(m.SourceIps)+len(m.NotSourceIps)+
		len(m.DestinationIps)+len(m.NotDestinationIps)+len(m.DestinationPorts)+len(m.NotDestinationPorts)+
		len(m.ServiceAccounts)+len(m.NotServiceAccounts)+len(m.Extensions) == 0
}

// http notes conditions that only a waypoint can decide.
func (t *ruleTranslation) http(name string, values []string) {
	if len(values) > 0 {
		t.unknown = append(t.unknown, name)
	}
}

func (t *ruleTranslation) operation(o *security.Operation) *apisecurity.Match {
	t.http("hosts", o.GetHosts())
	t.http("notHosts", o.GetNotHosts())
	t.http("methods", o.GetMethods())
	t.http("notMethods", o.GetNotMethods())
	t.http("paths", o.GetPaths())
	t.http("notPaths", o.GetNotPaths())
	return &apisecurity.Match{
		DestinationPorts:    t.ports("ports", o.GetPorts()),
		NotDestinationPorts: t.ports("notPorts", o.GetNotPorts()),
	}
}

func (t *ruleTranslation) source(s *security.Source) *apisecurity.Match {
	t.http("remoteIpBlocks", s.GetRemoteIpBlocks())
	t.http("notRemoteIpBlocks", s.GetNotRemoteIpBlocks())
	t.http("requestPrincipals", s.GetRequestPrincipals())
	t.http("notRequestPrincipals", s.GetNotRequestPrincipals())
	return &apisecurity.Match{
		Namespaces:         texts(s.GetNamespaces()),
		NotNamespaces:      texts(s.GetNotNamespaces()),
		Principals:         t.principals(s.GetPrincipals()),
		NotPrincipals:      t.principals(s.GetNotPrincipals()),
		ServiceAccounts:    t.accounts(s.GetServiceAccounts()),
		NotServiceAccounts: t.accounts(s.GetNotServiceAccounts()),
		SourceIps:          t.blocks("ipBlocks", s.GetIpBlocks()),
		NotSourceIps:       t.blocks("notIpBlocks", s.GetNotIpBlocks()),
	}
}

func (t *ruleTranslation) condition(c *security.Condition) *apisecurity.Match {
	switch key := c.GetKey(); key {
	case "source.ip":
		return &apisecurity.Match{SourceIps: t.blocks(key, c.GetValues()), NotSourceIps: t.blocks(key, c.GetNotValues())}
	case "source.namespace":
		return &apisecurity.Match{Namespaces: texts(c.GetValues()), NotNamespaces: texts(c.GetNotValues())}
	case "source.principal":
		return &apisecurity.Match{Principals: t.principals(c.GetValues()), NotPrincipals: t.principals(c.GetNotValues())}
	case "source.serviceAccount":
		return &apisecurity.Match{ServiceAccounts: t.accounts(c.GetValues()), NotServiceAccounts: t.accounts(c.GetNotValues())}
	case "destination.ip":
		return &apisecurity.Match{DestinationIps: t.blocks(key, c.GetValues()), NotDestinationIps: t.blocks(key, c.GetNotValues())}
	case "destination.port":
		return &apisecurity.Match{DestinationPorts: t.ports(key, c.GetValues()), NotDestinationPorts: t.ports(key, c.GetNotValues())}
	default:
		t.unknown = append(t.unknown, key)
		return &apisecurity.Match{}
	}
}

// principals notes those of another trust domain: peers of it are refused before
// any policy is asked, so a DENY that names one denies nobody.
func (t *ruleTranslation) principals(values []string) []*apisecurity.StringMatch {
	for _, v := range values {
		if td, _, whole := strings.Cut(v, "/"); whole && !strings.Contains(td, "*") && td != t.trustDomain {
			t.foreign = append(t.foreign, v)
		}
	}
	return texts(values)
}

// texts turns Istio's star patterns into their wire form.
func texts(values []string) []*apisecurity.StringMatch {
	var out []*apisecurity.StringMatch
	for _, v := range values {
		m := &apisecurity.StringMatch{}
		switch {
		case v == "*":
			m.MatchType = &apisecurity.StringMatch_Presence{Presence: &emptypb.Empty{}}
		case strings.HasPrefix(v, "*"):
			m.MatchType = &apisecurity.StringMatch_Suffix{Suffix: v[1:]}
		case strings.HasSuffix(v, "*"):
			m.MatchType = &apisecurity.StringMatch_Prefix{Prefix: v[:len(v)-1]}
		default:
			m.MatchType = &apisecurity.StringMatch_Exact{Exact: v}
		}
		out = append(out, m)
	}
	return out
}

// accounts reads name or namespace/name; a bare name is in the policy's namespace.
func (t *ruleTranslation) accounts(values []string) []*apisecurity.ServiceAccountMatch {
	var out []*apisecurity.ServiceAccountMatch
	for _, v := range values {
		ns, name, ok := strings.Cut(v, "/")
		if !ok {
			ns, name = t.namespace, v
		}
		out = append(out, &apisecurity.ServiceAccountMatch{Namespace: ns, ServiceAccount: name})
	}
	return out
}

// ports and blocks give up the whole list when a value cannot be read, as a
// condition that cannot be decided: leaving out one value would make a negated
// list match more and an emptied list match everything.
func (t *ruleTranslation) ports(field string, values []string) []uint32 {
	var out []uint32
	for _, v := range values {
		port, err := strconv.ParseUint(v, 10, 16)
		if err != nil || port == 0 {
			t.unknown = append(t.unknown, field+" "+strconv.Quote(v))
			return nil
		}
		out = append(out, uint32(port))
	}
	return out
}

func (t *ruleTranslation) blocks(field string, values []string) []*apisecurity.Address {
	var out []*apisecurity.Address
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			a, addrErr := netip.ParseAddr(v)
			if addrErr != nil || a.Zone() != "" {
				t.unknown = append(t.unknown, field+" "+strconv.Quote(v))
				return nil
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		p = p.Masked()
		out = append(out, &apisecurity.Address{Address: p.Addr().AsSlice(), Length: uint32(p.Bits())})
	}
	return out
}
