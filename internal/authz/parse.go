package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/security"
)

// ParsePolicy compiles a policy. Errors are only for policies that cannot be
// named; whatever else this proxy does not understand is taken in the strictest
// sense and told by Warnings:
//
//   - an unknown value or condition never holds in ALLOW and always in DENY,
//   - an unknown field of a rule or clause settles that rule or clause likewise,
//   - a policy with an unknown action, with unknown fields of its own, or beyond
//     the limits denies whatever it applies to,
//   - a policy with an unknown scope applies to every workload and, being ALLOW,
//     allows nothing.
//
// Rejecting such a policy instead would leave its workloads with less
// protection than its author wrote. The proto must not be changed afterwards.
func ParsePolicy(in *api.Authorization) (*Policy, error) {
	if err := checkName("name", in.GetName()); err != nil {
		return nil, err
	}
	if err := checkName("namespace", in.GetNamespace()); err != nil {
		return nil, fmt.Errorf("policy %q: %w", in.GetName(), err)
	}
	p := &Policy{
		key:       in.GetNamespace() + "/" + in.GetName(),
		name:      in.GetName(),
		namespace: in.GetNamespace(),
		dryRun:    in.GetDryRun(),
		source:    in,
	}
	c := compiler{policy: p}
	c.header(in)
	if err := c.rules(in.GetRules()); err != nil {
		c.denyAll, c.mute = true, true
		c.warn("policy", err.Error())
	}
	c.settle()
	return p, nil
}

// rules compiles the rules. An error says which limit they exceed.
func (c *compiler) rules(in []*api.Rule) error {
	if len(in) > maxRules {
		return fmt.Errorf("rules: %d entries, more than %d", len(in), maxRules)
	}
	for i, r := range in {
		compiled, err := c.rule(fmt.Sprintf("rules[%d]", i), r)
		if err != nil {
			return err
		}
		c.policy.rules = append(c.policy.rules, compiled)
	}
	return nil
}

func checkName(field, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: is empty", field)
	case len(s) > maxNameBytes:
		return fmt.Errorf("%s: is longer than %d bytes", field, maxNameBytes)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '/' }):
		return fmt.Errorf("%s: %q has characters that a name cannot have", field, s)
	}
	return nil
}

// compiler turns one policy into matchers.
type compiler struct {
	policy          *Policy
	matches, values int
	// denyAll is set when the whole policy must be taken in its strictest sense.
	denyAll bool
	// mute is set when an ALLOW policy must not allow anything.
	mute bool
}

// maxWarnings bounds what one hostile policy can write to the log.
const maxWarnings = 16

func (c *compiler) warn(at, what string) {
	if len(c.policy.warnings) < maxWarnings {
		c.policy.warnings = append(c.policy.warnings, at+": "+what)
	}
}

func (c *compiler) header(in *api.Authorization) {
	p := c.policy
	switch in.GetAction() {
	case api.Action_ALLOW:
		p.action = Allow
	case api.Action_DENY:
		p.action = Deny
	default:
		p.action, c.denyAll = Unknown, true
		c.warn("action", fmt.Sprintf("unknown value %d", in.GetAction()))
	}
	switch in.GetScope() {
	case api.Scope_GLOBAL:
		p.scope = Global
	case api.Scope_NAMESPACE:
		p.scope = Namespace
	case api.Scope_WORKLOAD_SELECTOR:
		p.scope = Selector
	default:
		p.scope, c.mute = Global, true
		c.warn("scope", fmt.Sprintf("unknown value %d", in.GetScope()))
	}
	if len(in.GetExtensions()) > 0 || hasUnknown(in) {
		c.denyAll, c.mute = true, true
		c.warn("policy", "has extensions or fields that this proxy does not know")
	}
}

// settle applies what the header decided and prepares the denial.
func (c *compiler) settle() {
	p := c.policy
	switch {
	case p.denies() && c.denyAll:
		p.rules = []rule{{fixed: always}}
	case !p.denies() && c.mute:
		p.rules = nil
	}
	if p.denies() {
		p.denial = &Denial{Policy: p.key, Reason: "denied by policy " + p.key}
		if len(p.warnings) > 0 {
			p.denial.Reason += " (parts of it are not understood and count as matched: " + p.warnings[0] + ")"
		}
	}
}

// strict is the outcome of a part that is not understood.
func (c *compiler) strict() truth {
	if c.policy.denies() {
		return always
	}
	return never
}

func (c *compiler) rule(at string, in *api.Rule) (rule, error) {
	var out rule
	if hasUnknown(in) {
		c.warn(at, "unknown field")
		out.fixed = c.strict()
	}
	if len(in.GetClauses()) > maxRules {
		return out, fmt.Errorf("%s.clauses: %d entries, more than %d", at, len(in.GetClauses()), maxRules)
	}
	for i, cl := range in.GetClauses() {
		compiled, err := c.clause(fmt.Sprintf("%s.clauses[%d]", at, i), cl)
		if err != nil {
			return out, err
		}
		out.clauses = append(out.clauses, compiled)
	}
	return out, nil
}

func (c *compiler) clause(at string, in *api.Clause) (clause, error) {
	var out clause
	if hasUnknown(in) {
		c.warn(at, "unknown field")
		out.fixed = c.strict()
	} else if len(in.GetMatches()) == 0 {
		out.fixed = always
	}
	if c.matches += len(in.GetMatches()); c.matches > maxMatches || len(in.GetMatches()) > maxRules {
		return out, fmt.Errorf("%s.matches: too many entries", at)
	}
	for i, m := range in.GetMatches() {
		compiled, err := c.match(fmt.Sprintf("%s.matches[%d]", at, i), m)
		if err != nil {
			return out, err
		}
		out.anyOf = append(out.anyOf, compiled)
	}
	return out, nil
}

var errTooManyValues = fmt.Errorf("more than %d values", maxValues)

func (c *compiler) match(at string, in *api.Match) (match, error) {
	var out match
	c.values += len(in.GetNamespaces()) + len(in.GetNotNamespaces()) +
		len(in.GetPrincipals()) + len(in.GetNotPrincipals()) +
		len(in.GetSourceIps()) + len(in.GetNotSourceIps()) +
		len(in.GetDestinationIps()) + len(in.GetNotDestinationIps()) +
		len(in.GetDestinationPorts()) + len(in.GetNotDestinationPorts()) +
		len(in.GetServiceAccounts()) + len(in.GetNotServiceAccounts())
	if c.values > maxValues {
		return out, errTooManyValues
	}
	add := func(cond condition, n int) {
		if n > 0 {
			out.conditions = append(out.conditions, cond)
		}
	}
	add(c.ports(at+".destination_ports", in.GetDestinationPorts(), false))
	add(c.ports(at+".not_destination_ports", in.GetNotDestinationPorts(), true))
	add(c.ips(at+".source_ips", fieldSourceIP, in.GetSourceIps(), false))
	add(c.ips(at+".not_source_ips", fieldSourceIP, in.GetNotSourceIps(), true))
	add(c.ips(at+".destination_ips", fieldDestinationIP, in.GetDestinationIps(), false))
	add(c.ips(at+".not_destination_ips", fieldDestinationIP, in.GetNotDestinationIps(), true))
	add(c.strings(at+".namespaces", fieldNamespace, in.GetNamespaces(), false))
	add(c.strings(at+".not_namespaces", fieldNamespace, in.GetNotNamespaces(), true))
	add(c.accounts(at+".service_accounts", in.GetServiceAccounts(), false))
	add(c.accounts(at+".not_service_accounts", in.GetNotServiceAccounts(), true))
	add(c.strings(at+".principals", fieldPrincipal, in.GetPrincipals(), false))
	add(c.strings(at+".not_principals", fieldPrincipal, in.GetNotPrincipals(), true))
	unknown := len(in.GetExtensions()) > 0 || hasUnknown(in)
	switch {
	case unknown && !c.policy.denies():
		out.fixed = never
	case unknown:
		// The unknown condition counts as matched, the others still decide.
	case len(out.conditions) == 0:
		out.fixed = never
	}
	if unknown {
		c.warn(at, "unknown condition")
	}
	return out, nil
}

// condition starts one with its polarity for unknown values.
func (c *compiler) condition(f field, not bool) condition {
	// An unknown value must make the condition hold in DENY and fail in ALLOW;
	// under a negation the value itself therefore answers the opposite.
	return condition{field: f, not: not, unknownHolds: c.policy.denies()}
}

func (c *compiler) unknownValue(cond *condition, at string, i int, what string) {
	cond.unknown = true
	c.warn(fmt.Sprintf("%s[%d]", at, i), what)
}

func (c *compiler) ports(at string, in []uint32, not bool) (condition, int) {
	cond := c.condition(fieldDestinationPort, not)
	for i, p := range in {
		if p == 0 || p > 65535 {
			c.unknownValue(&cond, at, i, fmt.Sprintf("%d is not a port", p))
			continue
		}
		cond.ports = append(cond.ports, uint16(p))
	}
	slices.Sort(cond.ports)
	return cond, len(in)
}

func (c *compiler) ips(at string, f field, in []*api.Address, not bool) (condition, int) {
	cond := c.condition(f, not)
	var prefixes []netip.Prefix
	for i, a := range in {
		p, ok := prefix(a)
		if !ok || hasUnknown(a) {
			c.unknownValue(&cond, at, i, "is not an address and prefix length")
			continue
		}
		prefixes = append(prefixes, p)
	}
	cond.ranges = NewRanges(prefixes)
	return cond, len(in)
}

func prefix(a *api.Address) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(a.GetAddress())
	if !ok || a.GetLength() > uint32(addr.BitLen()) {
		return netip.Prefix{}, false
	}
	bits := int(a.GetLength())
	if addr.Is4In6() {
		// Connections are compared unmapped.
		if bits < 96 {
			return netip.Prefix{}, false
		}
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}

func (c *compiler) strings(at string, f field, in []*api.StringMatch, not bool) (condition, int) {
	cond := c.condition(f, not)
	set := &cond.strings
	for i, m := range in {
		var v string
		switch t := m.GetMatchType().(type) {
		case *api.StringMatch_Exact:
			v = t.Exact
		case *api.StringMatch_Prefix:
			v = t.Prefix
		case *api.StringMatch_Suffix:
			v = t.Suffix
		}
		if m.GetMatchType() == nil || hasUnknown(m) || len(v) > maxValueBytes || hasUnknown(m.GetPresence()) {
			c.unknownValue(&cond, at, i, "is not a string match that this proxy knows")
			continue
		}
		switch m.GetMatchType().(type) {
		case *api.StringMatch_Exact:
			set.exact = append(set.exact, trimScheme(f, v))
		case *api.StringMatch_Prefix:
			set.prefixes = append(set.prefixes, trimScheme(f, v))
		case *api.StringMatch_Suffix:
			set.suffixes = append(set.suffixes, v)
		case *api.StringMatch_Presence:
			set.presence = true
		}
	}
	slices.Sort(set.exact)
	return cond, len(in)
}

// trimScheme drops spiffe:// from principals, on this side as on the other.
func trimScheme(f field, v string) string {
	if f == fieldPrincipal {
		return strings.TrimPrefix(v, "spiffe://")
	}
	return v
}

func (c *compiler) accounts(at string, in []*api.ServiceAccountMatch, not bool) (condition, int) {
	cond := c.condition(fieldServiceAccount, not)
	for i, m := range in {
		if m.GetNamespace() == "" || m.GetServiceAccount() == "" || hasUnknown(m) {
			c.unknownValue(&cond, at, i, "is not a namespace and service account")
			continue
		}
		cond.accounts = append(cond.accounts, account{m.GetNamespace(), m.GetServiceAccount()})
	}
	return cond, len(in)
}

// hasUnknown reports fields on the wire that the generated code does not know.
func hasUnknown(m proto.Message) bool {
	r := m.ProtoReflect()
	return r.IsValid() && len(r.GetUnknown()) > 0
}
