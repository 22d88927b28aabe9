package request

import (
	"google.golang.org/protobuf/encoding/protojson"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

// Action is what a policy that fits does.
type Action uint8

// The actions.
const (
	Allow Action = iota
	Deny
	Audit
	// Custom policies ask an external authorizer.
	Custom
	// Unknown is an action that this proxy does not know. Such a policy denies all
	// requests of the services that it applies to.
	Unknown
)

// String returns the action as AuthorizationPolicy writes it.
func (a Action) String() string {
	switch a {
	case Allow:
		return "ALLOW"
	case Deny:
		return "DENY"
	case Audit:
		return "AUDIT"
	case Custom:
		return "CUSTOM"
	default:
		return "UNKNOWN"
	}
}

// Policy is one compiled policy, immutable and safe for concurrent use.
type Policy struct {
	key      string
	action   Action
	dryRun   bool
	rules    []rule
	warnings []string
	// denial is that of a policy that denies.
	denial *Denial
	source *api.Policy
}

// Key returns "namespace/name".
func (p *Policy) Key() string { return p.key }

// Action returns what the policy does when it fits.
func (p *Policy) Action() Action { return p.action }

// DryRun reports that the policy is evaluated and not enforced.
func (p *Policy) DryRun() bool { return p.dryRun }

// Warnings says what in the policy this proxy did not understand and therefore took
// in the strictest sense. It is empty for a policy that is fully understood.
func (p *Policy) Warnings() []string { return p.warnings }

// MarshalJSON writes the policy as it arrived.
func (p *Policy) MarshalJSON() ([]byte, error) { return protojson.Marshal(p.source) }

// restricts tells that fitting is bad for a request, so that doubt makes it fit.
func (p *Policy) restricts() bool { return p.action != Allow }

func (p *Policy) matches(in *input) bool {
	for i := range p.rules {
		if p.rules[i].matches(in) {
			return true
		}
	}
	return false
}

// truth is a part of a policy whose outcome is settled when it is compiled.
type truth uint8

const (
	open   truth = iota // decided per request
	always              // always fits
	never               // never fits
)

// rule holds when all of its groups do: sources, operations, and each condition of
// when.
type rule struct {
	fixed  truth
	groups []group
}

func (r *rule) matches(in *input) bool {
	switch r.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range r.groups {
		if !r.groups[i].matches(in) {
			return false
		}
	}
	return true
}

// group holds when one of its clauses does.
type group struct{ anyOf []clause }

func (g *group) matches(in *input) bool {
	for i := range g.anyOf {
		if g.anyOf[i].matches(in) {
			return true
		}
	}
	return false
}

// clause holds when all of its conditions do.
type clause struct {
	fixed      truth
	conditions []condition
}

func (c *clause) matches(in *input) bool {
	switch c.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range c.conditions {
		if !c.conditions[i].holds(in) {
			return false
		}
	}
	return true
}
