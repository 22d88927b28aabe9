package authz

import (
	"fmt"
	"strconv"
	"strings"
)

// explain says why none of the ALLOW policies matched: it names the one that
// came nearest and the first condition that failed there. It runs only for
// connections that are denied.
func explain(allow []*Policy, in *input) *Denial {
	best, nearest := verdict{failed: -1}, allow[0]
	for _, p := range allow {
		if v := p.explain(in); v.nearer(best) {
			best, nearest = v, p
		}
	}
	return &Denial{
		Policy: nearest.key,
		Reason: fmt.Sprintf("ALLOW policies exist and none matched; nearest is %s: %s", nearest.key, best.why(in)),
	}
}

// verdict is how a part of a policy failed: how many conditions failed, how
// many held, and the first that failed.
type verdict struct {
	failed, held int // failed < 0: nothing looked at yet
	first        *condition
	text         string
}

func (v verdict) nearer(than verdict) bool {
	if than.failed < 0 {
		return true
	}
	// A part that cannot match at all is never the nearest.
	if (v.first == nil) != (than.first == nil) {
		return v.first != nil
	}
	if v.failed != than.failed {
		return v.failed < than.failed
	}
	return v.held > than.held
}

func (p *Policy) explain(in *input) verdict {
	best := verdict{failed: -1, text: "it has no rules, so it allows nothing"}
	if len(p.rules) == 0 && len(p.warnings) > 0 {
		best.text = "it is not understood and allows nothing: " + p.warnings[0]
	}
	if len(p.rules) == 0 {
		best.failed = 0
		return best
	}
	for i := range p.rules {
		if v := p.rules[i].explain(in); v.nearer(best) {
			best = v
		}
	}
	if best.first == nil && len(p.warnings) > 0 {
		best.text = "it has a condition that is not understood and never holds: " + p.warnings[0]
	}
	return best
}

// explain adds up the clauses that failed, each by its nearest match.
func (r *rule) explain(in *input) verdict {
	var sum verdict
	if r.fixed == never {
		return verdict{text: "it has a rule that never matches"}
	}
	for i := range r.clauses {
		c := &r.clauses[i]
		if c.matches(in) {
			sum.held++
			continue
		}
		best := verdict{failed: -1}
		for j := range c.anyOf {
			if v := c.anyOf[j].explain(in); v.nearer(best) {
				best = v
			}
		}
		if best.first == nil || c.fixed == never {
			// One clause that can never match makes the rule hopeless.
			return verdict{text: "it has a rule that never matches"}
		}
		sum.failed += best.failed
		sum.held += best.held
		if sum.first == nil {
			sum.first = best.first
		}
	}
	return sum
}

func (m *match) explain(in *input) verdict {
	var v verdict
	if m.fixed == never {
		return v
	}
	for i := range m.conditions {
		c := &m.conditions[i]
		if c.holds(in) {
			v.held++
			continue
		}
		v.failed++
		if v.first == nil {
			v.first = c
		}
	}
	return v
}

func (v verdict) why(in *input) string {
	if v.first == nil {
		return v.text
	}
	c := v.first
	relation := "is not "
	if c.not {
		relation = "is excluded, being "
	}
	if !in.hasIdentity && c.field >= fieldNamespace {
		return c.field.name() + " is none (the client has no mesh identity), and the policy wants " + c.wants()
	}
	return c.field.name() + " " + strconv.Quote(c.value(in)) + " " + relation + c.wants()
}

// value is what the connection has in the condition's field.
func (c *condition) value(in *input) string {
	switch c.field {
	case fieldDestinationPort:
		return strconv.Itoa(int(in.port))
	case fieldSourceIP:
		return in.source.String()
	case fieldDestinationIP:
		return in.destination.String()
	case fieldNamespace:
		return in.namespace
	case fieldServiceAccount:
		return in.namespace + "/" + in.account
	default:
		return in.principal
	}
}

// wants lists the values of the condition, a few of them.
func (c *condition) wants() string {
	var all []string
	for _, p := range c.ports {
		all = append(all, strconv.Itoa(int(p)))
	}
	all = append(all, c.ranges.Strings()...)
	if c.strings.presence {
		all = append(all, "any")
	}
	all = append(all, c.strings.exact...)
	for _, s := range c.strings.prefixes {
		all = append(all, s+"*")
	}
	for _, s := range c.strings.suffixes {
		all = append(all, "*"+s)
	}
	for _, a := range c.accounts {
		all = append(all, a.namespace+"/"+a.name)
	}
	if c.unknown {
		all = append(all, "a value that is not understood")
	}
	more := ""
	if n := len(all) - maxReasonValues; n > 0 {
		all, more = all[:maxReasonValues], fmt.Sprintf(" and %d more", n)
	}
	if len(all) == 1 {
		return all[0]
	}
	return "one of " + strings.Join(all, ", ") + more
}
