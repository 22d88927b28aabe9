package request

import (
	"fmt"
	"strings"
)

// Verdict is what one policy says of one request, for people.
type Verdict struct {
	// Policy is "namespace/name".
	Policy string
	Action Action
	DryRun bool
	// Matched is the outcome; Reason is the rule that fitted, or the first condition
	// that failed where the policy came nearest.
	Matched bool
	Reason  string
}

// Verdicts evaluates every policy in the set for one request, in the order in which
// Authorize asks them, those that are not enforced last. It is for explanations;
// decisions are Authorize's, which stops at the first policy that settles the matter.
// Attributes that Authorize refuses have none.
func (s Policies) Verdicts(a *Attributes) []Verdict {
	if _, denial := prepare(a); denial != nil {
		return nil
	}
	out := make([]Verdict, 0, s.Len())
	for _, p := range s.All() {
		out = append(out, p.verdict(a))
	}
	return out
}

func (p *Policy) verdict(a *Attributes) Verdict {
	v := Verdict{Policy: p.key, Action: p.action, DryRun: p.dryRun, Matched: p.fits(a)}
	in, _ := prepare(a)
	in.unchecked = p.action == Custom
	// The form of the path that decided: the first on which the policy says what it
	// says of the request.
	if p.matches(&in) != v.Matched {
		in.refold()
	}
	if !v.Matched {
		v.Reason = p.explain(&in).why(&in)
		return v
	}
	for i := range p.rules {
		if p.rules[i].matches(&in) {
			v.Reason = fmt.Sprintf("rule %d matches%s", i+1, p.rules[i].facts(&in))
			break
		}
	}
	return v
}

// facts names what of the request made the rule fit: the conditions of the first
// clause of each group that holds.
func (r *rule) facts(in *input) string {
	var all []string
	for i := range r.groups {
		for j := range r.groups[i].anyOf {
			c := &r.groups[i].anyOf[j]
			if !c.matches(in) {
				continue
			}
			if c.fixed == always {
				all = append(all, "a part that is not understood")
			}
			for k := range c.conditions {
				all = append(all, c.conditions[k].fact(in))
			}
			break
		}
	}
	if len(all) == 0 {
		return " everything"
	}
	return ": " + strings.Join(all, ", ")
}

func (c *condition) fact(in *input) string {
	if !c.known(in) {
		return c.what() + " is not known for this " + in.kind()
	}
	value, ok := c.shown(in)
	switch {
	case c.field == fieldExpression && c.not:
		return "no expression holds that is excluded"
	case c.field == fieldExpression:
		return "an expression holds of " + c.wants()
	case !ok && c.not:
		return c.what() + " has no value that is excluded"
	case !ok:
		return c.what() + " has a value that is named"
	case value == "":
		return c.what() + " is none"
	case c.not:
		return c.what() + " is not " + c.wants() + " but " + quote(value)
	}
	return c.what() + " is " + quote(value)
}
