package authz

import (
	"fmt"
	"strconv"
	"strings"
)

// Verdict is what one policy says of one connection, for people.
type Verdict struct {
	// Policy is "namespace/name".
	Policy string
	Action Action
	Scope  Scope
	DryRun bool
	// Matched is the outcome; Reason is the rule that matched, or the first
	// condition that failed where the policy came nearest.
	Matched bool
	Reason  string
}

// Verdicts evaluates every policy in the set for one connection, in the order in
// which Authorize asks them: DENY before ALLOW, those that are not enforced last.
// It is for explanations; decisions are Authorize's, which stops at the first
// policy that settles the matter. Attributes that Authorize refuses have none.
func (s Policies) Verdicts(a Attributes) []Verdict {
	in, denial := prepare(a)
	if denial != nil {
		return nil
	}
	out := make([]Verdict, 0, s.Len())
	for _, list := range [][]*Policy{s.deny, s.allow, s.dryDeny, s.dryAllow} {
		for _, p := range list {
			out = append(out, p.verdict(&in))
		}
	}
	return out
}

func (p *Policy) verdict(in *input) Verdict {
	v := Verdict{Policy: p.key, Action: p.action, Scope: p.scope, DryRun: p.dryRun}
	for i := range p.rules {
		if p.rules[i].matches(in) {
			v.Matched, v.Reason = true, fmt.Sprintf("rule %d matches%s", i+1, p.rules[i].facts(in))
			return v
		}
	}
	switch {
	case len(p.rules) == 0 && len(p.warnings) == 0 && p.denies():
		v.Reason = "it has no rules, so it denies nothing"
	default:
		v.Reason = p.explain(in).why(in)
	}
	return v
}

// facts names what of the connection made the rule match: the conditions of the
// first match of each clause that holds.
func (r *rule) facts(in *input) string {
	var all []string
	for i := range r.clauses {
		c := &r.clauses[i]
		for j := range c.anyOf {
			if m := &c.anyOf[j]; m.matches(in) {
				for k := range m.conditions {
					all = append(all, m.conditions[k].fact(in))
				}
				break
			}
		}
	}
	if len(all) == 0 {
		return " every connection"
	}
	return ": " + strings.Join(all, ", ")
}

func (c *condition) fact(in *input) string {
	if !in.hasIdentity && c.field >= fieldNamespace {
		return c.field.name() + " is none (the client has no mesh identity)"
	}
	relation := " is "
	if c.not {
		relation = " is not " + c.wants() + " but "
	}
	return c.field.name() + relation + strconv.Quote(c.value(in))
}
