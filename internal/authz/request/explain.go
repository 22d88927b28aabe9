package request

import (
	"fmt"
	"strconv"
	"strings"
)

// explain says why none of the ALLOW policies fitted: it names the one that came
// nearest and the first condition that failed there. It runs only for requests that
// are denied.
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

// verdict is how a part of a policy failed: how many conditions failed, how many
// held, and the first that failed.
type verdict struct {
	failed, held int // failed < 0: nothing looked at yet
	first        *condition
	text         string
}

func (v verdict) nearer(than verdict) bool {
	if than.failed < 0 {
		return true
	}
	// A part that cannot fit at all is never the nearest.
	if (v.first == nil) != (than.first == nil) {
		return v.first != nil
	}
	if v.failed != than.failed {
		return v.failed < than.failed
	}
	return v.held > than.held
}

func (p *Policy) explain(in *input) verdict {
	best := verdict{failed: -1}
	for i := range p.rules {
		if v := p.rules[i].explain(in); v.nearer(best) {
			best = v
		}
	}
	switch {
	case len(p.rules) == 0 && len(p.warnings) > 0:
		return verdict{text: "it is not understood and fits nothing: " + p.warnings[0]}
	case len(p.rules) == 0 && p.action == Allow:
		return verdict{text: "it has no rules, so it allows nothing"}
	case len(p.rules) == 0:
		return verdict{text: "it has no rules, so it fits nothing"}
	case best.first == nil && len(p.warnings) > 0:
		best.text = "it has a condition that is not understood and never holds: " + p.warnings[0]
	}
	return best
}

// explain adds up the groups that failed, each by its nearest clause.
func (r *rule) explain(in *input) verdict {
	hopeless := verdict{text: "it has a rule that never matches"}
	if r.fixed == never {
		return hopeless
	}
	var sum verdict
	for i := range r.groups {
		g := &r.groups[i]
		if g.matches(in) {
			sum.held++
			continue
		}
		best := verdict{failed: -1}
		for j := range g.anyOf {
			if v := g.anyOf[j].explain(in); v.nearer(best) {
				best = v
			}
		}
		if best.first == nil {
			// One group that can never hold makes the rule hopeless.
			return hopeless
		}
		sum.failed += best.failed
		sum.held += best.held
		if sum.first == nil {
			sum.first = best.first
		}
	}
	return sum
}

func (c *clause) explain(in *input) verdict {
	var v verdict
	if c.fixed == never {
		return v
	}
	for i := range c.conditions {
		cond := &c.conditions[i]
		if cond.holds(in) {
			v.held++
			continue
		}
		v.failed++
		if v.first == nil {
			v.first = cond
		}
	}
	return v
}

func (v verdict) why(in *input) string {
	if v.first == nil {
		return v.text
	}
	c := v.first
	if !c.known(in) {
		return c.what() + " is not known for this " + in.kind()
	}
	if c.field == fieldExpression {
		if c.not {
			return "an expression holds that is excluded, of " + c.wants()
		}
		return "no expression holds of " + c.wants()
	}
	if value, ok := c.shown(in); ok {
		switch {
		case value == "":
			return c.what() + " is none, and the policy wants " + c.wants()
		case c.not:
			return c.what() + " " + quote(value) + " is excluded, being " + c.wants()
		}
		return c.what() + " " + quote(value) + " is not " + c.wants()
	}
	if c.not {
		return c.what() + " has a value that the policy excludes"
	}
	return c.what() + " does not have a value that the policy wants"
}

func (in *input) kind() string {
	if in.Request == nil {
		return "connection, which carries bytes"
	}
	return "request"
}

// quote shortens what a client chose.
func quote(s string) string {
	if len(s) > maxReasonBytes {
		return strconv.Quote(s[:maxReasonBytes]) + "…"
	}
	return strconv.Quote(s)
}

// what is the attribute as users know it from AuthorizationPolicy.
func (c *condition) what() string {
	switch c.field {
	case fieldPort:
		return "destination port"
	case fieldNamespace:
		return "source namespace"
	case fieldAccount:
		return "source service account"
	case fieldTrustDomain:
		return "source trust domain"
	case fieldPrincipal:
		return "source principal"
	case fieldSourceIP:
		return "source address"
	case fieldRemoteIP:
		return "remote address"
	case fieldDestinationIP:
		return "destination address"
	case fieldServerName:
		return "server name"
	case fieldMethod:
		return "method"
	case fieldHost:
		return "host"
	case fieldPath:
		return "path"
	case fieldHeader:
		return "header field " + c.name
	case fieldPresenter:
		return "claim azp"
	case fieldAudience:
		return "audience"
	case fieldRequestPrincipal:
		return "request principal"
	case fieldExpression:
		return "expression"
	default:
		return "claim " + strings.Join(c.names, ".")
	}
}

// shown returns what the request has in the condition's field, empty for none, and
// false for what logs must not show: header fields and claims may be secrets.
func (c *condition) shown(in *input) (string, bool) {
	switch c.field {
	case fieldPort:
		return strconv.Itoa(int(in.Destination.Port())), true
	case fieldNamespace:
		return in.Peer.namespace, true
	case fieldAccount:
		if in.Peer.IsZero() {
			return "", true
		}
		return in.Peer.namespace + "/" + in.Peer.account, true
	case fieldTrustDomain:
		return in.Peer.trustDomain, true
	case fieldPrincipal:
		return in.Peer.principal, true
	case fieldSourceIP:
		return in.source.String(), true
	case fieldRemoteIP:
		return in.remote.String(), true
	case fieldDestinationIP:
		return in.destination.String(), true
	case fieldServerName:
		return in.ServerName, true
	case fieldMethod:
		return in.Request.Method, true
	case fieldHost:
		return in.Request.Authority, true
	case fieldPath:
		return in.path, true
	case fieldRequestPrincipal:
		issuer, subject := in.subject()
		if issuer == "" || subject == "" {
			return "", true
		}
		return issuer + "/" + subject, true
	default:
		return "", false
	}
}

// wants lists the values of the condition, a few of them.
func (c *condition) wants() string {
	var all []string
	for _, p := range c.ports {
		all = append(all, strconv.Itoa(int(p)))
	}
	all = append(all, c.ranges.Strings()...)
	all = append(all, c.patterns.texts()...)
	for _, a := range c.accounts {
		all = append(all, a.namespace+"/"+a.name)
	}
	for _, p := range c.programs {
		all = append(all, quote(p.String()))
	}
	if c.doubt {
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
