package request

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/cel"
)

// Compile compiles a policy. Errors are only for policies that cannot be named;
// whatever else this proxy does not understand is taken in the strictest sense and
// told by Warnings:
//
//   - an unknown value, key or condition never holds in ALLOW and always otherwise,
//   - a rule with unknown fields, and an empty source or operation, likewise,
//   - a policy with an unknown action denies all that it applies to,
//   - a policy with unknown fields of its own, or beyond the limits, fits everything
//     or, being ALLOW, nothing.
//
// Rejecting such a policy instead would leave its services with less protection than
// its author wrote. The proto must not be changed afterwards.
func Compile(in *api.Policy) (*Policy, error) {
	if err := checkName("name", in.GetName()); err != nil {
		return nil, err
	}
	if err := checkName("namespace", in.GetNamespace()); err != nil {
		return nil, fmt.Errorf("policy %q: %w", in.GetName(), err)
	}
	p := &Policy{key: in.GetNamespace() + "/" + in.GetName(), dryRun: in.GetDryRun(), source: in}
	c := compiler{policy: p, namespace: in.GetNamespace()}
	c.header(in)
	if err := c.rules(in.GetRules()); err != nil {
		c.settled = true
		c.warn("policy", err.Error())
	}
	if c.settled {
		p.rules = nil
		if p.restricts() {
			p.rules = []rule{{fixed: always}}
		}
	}
	p.denial = &Denial{Policy: p.key, Reason: "denied by policy " + p.key}
	if len(p.warnings) > 0 {
		p.denial.Reason += " (parts of it are not understood and count as matched: " + p.warnings[0] + ")"
	}
	return p, nil
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
	namespace       string
	clauses, values int
	expressions     int
	// settled says that the whole policy must be taken in its strictest sense.
	settled bool
}

func (c *compiler) warn(at, what string) {
	if len(c.policy.warnings) < maxWarnings {
		c.policy.warnings = append(c.policy.warnings, at+": "+what)
	}
}

func (c *compiler) header(in *api.Policy) {
	p := c.policy
	switch in.GetAction() {
	case api.Action_ALLOW:
		p.action = Allow
	case api.Action_DENY:
		p.action = Deny
	case api.Action_AUDIT:
		p.action = Audit
	case api.Action_CUSTOM:
		p.action = Custom
		if in.GetExternalAuth() == nil {
			c.warn("provider", fmt.Sprintf("%q is not known, so what fits is refused", in.GetProvider()))
		}
	default:
		p.action, c.settled = Unknown, true
		c.warn("action", fmt.Sprintf("unknown value %d", in.GetAction()))
	}
	if hasUnknown(in) {
		c.settled = true
		c.warn("policy", "has fields that this proxy does not know")
	}
}

// strict is the outcome of a part that is not understood.
func (c *compiler) strict() truth {
	if c.policy.restricts() {
		return always
	}
	return never
}

// rules compiles the rules. An error says which limit they exceed.
func (c *compiler) rules(in []*api.PolicyRule) error {
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

func (c *compiler) rule(at string, in *api.PolicyRule) (rule, error) {
	var out rule
	if hasUnknown(in) {
		c.warn(at, "unknown field")
		out.fixed = c.strict()
	}
	n := max(len(in.GetFrom()), len(in.GetTo()), len(in.GetWhen()))
	c.clauses += len(in.GetFrom()) + len(in.GetTo()) + len(in.GetWhen())
	if n > maxRules || c.clauses > maxClauses {
		return out, fmt.Errorf("%s: too many sources, operations and conditions", at)
	}
	if len(in.GetFrom()) > 0 {
		g := group{}
		for i, s := range in.GetFrom() {
			g.anyOf = append(g.anyOf, c.source(fmt.Sprintf("%s.from[%d]", at, i), s))
		}
		out.groups = append(out.groups, g)
	}
	if len(in.GetTo()) > 0 {
		g := group{}
		for i, o := range in.GetTo() {
			g.anyOf = append(g.anyOf, c.operation(fmt.Sprintf("%s.to[%d]", at, i), o))
		}
		out.groups = append(out.groups, g)
	}
	for i, w := range in.GetWhen() {
		out.groups = append(out.groups, group{anyOf: []clause{c.when(fmt.Sprintf("%s.when[%d]", at, i), w)}})
	}
	if c.values > maxValues {
		return out, fmt.Errorf("%s: more than %d values", at, maxValues)
	}
	return out, nil
}

func (c *compiler) source(at string, in *api.Source) clause {
	var out clause
	list := func(name string, f field, values, notValues []string) {
		c.lists(&out, at+"."+name, condition{field: f}, values, notValues)
	}
	list("namespaces", fieldNamespace, in.GetNamespaces(), in.GetNotNamespaces())
	list("serviceAccounts", fieldAccount, in.GetServiceAccounts(), in.GetNotServiceAccounts())
	list("trustDomains", fieldTrustDomain, in.GetTrustDomains(), in.GetNotTrustDomains())
	list("principals", fieldPrincipal, in.GetPrincipals(), in.GetNotPrincipals())
	list("ipBlocks", fieldSourceIP, in.GetIpBlocks(), in.GetNotIpBlocks())
	list("remoteIpBlocks", fieldRemoteIP, in.GetRemoteIpBlocks(), in.GetNotRemoteIpBlocks())
	list("requestPrincipals", fieldRequestPrincipal, in.GetRequestPrincipals(), in.GetNotRequestPrincipals())
	c.close(&out, at, in)
	return out
}

func (c *compiler) operation(at string, in *api.Operation) clause {
	var out clause
	list := func(name string, f field, values, notValues []string) {
		c.lists(&out, at+"."+name, condition{field: f}, values, notValues)
	}
	list("ports", fieldPort, in.GetPorts(), in.GetNotPorts())
	list("methods", fieldMethod, in.GetMethods(), in.GetNotMethods())
	list("hosts", fieldHost, in.GetHosts(), in.GetNotHosts())
	list("paths", fieldPath, in.GetPaths(), in.GetNotPaths())
	c.close(&out, at, in)
	return out
}

func (c *compiler) when(at string, in *api.Condition) clause {
	var out clause
	cond, why := parseKey(in.GetKey())
	if why == "" {
		c.lists(&out, at, cond, in.GetValues(), in.GetNotValues())
		if len(out.conditions) == 0 {
			// Istio's schema wants values; its proxy drops a condition without.
			why = "has no values"
		}
	}
	if why != "" {
		c.warn(at, why)
		out.fixed = c.strict()
	}
	c.close(&out, at, in)
	return out
}

// close settles a clause that is empty or has fields that are not known. In a policy
// that restricts, an unknown condition counts as holding and the others still decide.
func (c *compiler) close(out *clause, at string, in proto.Message) {
	unknown := hasUnknown(in)
	switch {
	case unknown:
		c.warn(at, "unknown field")
	case len(out.conditions) == 0 && out.fixed == open:
		c.warn(at, "is empty")
	}
	if len(out.conditions) == 0 || unknown && !c.policy.restricts() {
		out.fixed = c.strict()
	}
}

// lists adds the conditions of a list of values and of its negation.
func (c *compiler) lists(out *clause, at string, cond condition, values, notValues []string) {
	for _, l := range []struct {
		values []string
		not    bool
	}{{values, false}, {notValues, true}} {
		if len(l.values) == 0 {
			continue
		}
		if c.values += len(l.values); c.values > maxValues {
			return
		}
		one := cond
		one.not, one.wide = l.not, c.policy.restricts() != l.not
		var prefixes []netip.Prefix
		for i, v := range l.values {
			if why := c.value(&one, &prefixes, v); why != "" {
				one.doubt = true
				c.warn(fmt.Sprintf("%s[%d]", at, i), why)
			}
		}
		one.patterns.seal()
		one.ranges = authz.NewRanges(prefixes)
		slices.Sort(one.ports)
		out.conditions = append(out.conditions, one)
	}
}

// value takes one value and returns why it is not understood, if so.
func (c *compiler) value(cond *condition, prefixes *[]netip.Prefix, v string) string {
	switch {
	case v == "":
		return "is empty"
	case len(v) > maxValueBytes:
		return fmt.Sprintf("is longer than %d bytes", maxValueBytes)
	case !utf8.ValidString(v):
		return "is not UTF-8"
	}
	switch cond.field {
	case fieldPort:
		port, err := strconv.ParseUint(v, 10, 16)
		if err != nil || port == 0 {
			return strconv.Quote(v) + " is not a port"
		}
		cond.ports = append(cond.ports, uint16(port))
	case fieldSourceIP, fieldRemoteIP, fieldDestinationIP:
		p, ok := parsePrefix(v)
		if !ok {
			return strconv.Quote(v) + " is not an address or CIDR"
		}
		*prefixes = append(*prefixes, p)
	case fieldAccount:
		namespace, name, ok := strings.Cut(v, "/")
		if !ok {
			namespace, name = c.namespace, v
		}
		if namespace == "" || name == "" || strings.Contains(name, "/") || strings.Contains(v, "*") {
			return strconv.Quote(v) + " is not a service account"
		}
		cond.accounts = append(cond.accounts, account{namespace, name})
	case fieldExpression:
		if c.expressions++; c.expressions > maxExpressions {
			return fmt.Sprintf("is one of more than %d expressions", maxExpressions)
		}
		p, err := cel.Conditions.Compile(v)
		if err != nil {
			return "is no condition in CEL: " + err.Error()
		}
		cond.programs = append(cond.programs, p)
	case fieldPrincipal:
		cond.patterns.add(strings.TrimPrefix(v, "spiffe://"), cond.wide)
	case fieldRequestPrincipal:
		cond.subjects = append(cond.subjects, parseSubject(v))
		cond.patterns.add(v, cond.wide)
	case fieldHost, fieldServerName:
		cond.lower(v)
	case fieldPath:
		if !cond.patterns.addPath(v, cond.wide) {
			return strconv.Quote(v) + " is not a valid path template"
		}
	case fieldHeader:
		switch cond.name {
		case ":authority", "host", "upgrade", ":protocol":
			cond.lower(v)
		default:
			cond.patterns.add(v, cond.wide)
		}
	default:
		cond.patterns.add(v, cond.wide)
	}
	return ""
}

// lower adds a value for what requests have in lower case.
func (c *condition) lower(v string) {
	c.patterns.add(strings.ToLower(v), c.wide)
	c.withPort = c.withPort || strings.Contains(v, ":")
}

func parsePrefix(v string) (netip.Prefix, bool) {
	if !strings.Contains(v, "/") {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		// Connections are compared unmapped.
		if p.Bits() < 96 {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// hasUnknown reports fields on the wire that the generated code does not know.
func hasUnknown(m proto.Message) bool {
	r := m.ProtoReflect()
	return r.IsValid() && len(r.GetUnknown()) > 0
}
