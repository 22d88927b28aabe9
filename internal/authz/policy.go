package authz

import (
	api "github.com/tulle-mesh/tulle/api/security"
)

// Action is what a policy that matches does.
type Action uint8

// The actions.
const (
	Allow Action = iota
	Deny
	// Unknown is an action that this proxy does not know. Such a policy denies
	// every connection of the workloads that it applies to.
	Unknown
)

// String returns the name that config dumps use.
func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Deny:
		return "Deny"
	default:
		return "Unknown"
	}
}

// Scope says which workloads a policy applies to.
type Scope uint8

// The scopes.
const (
	// Global policies apply to the whole mesh.
	Global Scope = iota
	// Namespace policies apply to the workloads of their namespace.
	Namespace
	// Selector policies apply to workloads that list them.
	Selector
)

// String returns the name that config dumps use.
func (s Scope) String() string {
	switch s {
	case Namespace:
		return "Namespace"
	case Selector:
		return "WorkloadSelector"
	default:
		return "Global"
	}
}

// Policy is one compiled policy, immutable and safe for concurrent use.
type Policy struct {
	key, name, namespace string
	scope                Scope
	action               Action
	dryRun               bool
	rules                []rule
	warnings             []string
	denial               *Denial
	source               *api.Authorization
}

// Key returns "namespace/name".
func (p *Policy) Key() string { return p.key }

// Name returns the policy's name.
func (p *Policy) Name() string { return p.name }

// Namespace returns the policy's namespace.
func (p *Policy) Namespace() string { return p.namespace }

// Scope says which workloads the policy applies to.
func (p *Policy) Scope() Scope { return p.scope }

// Action returns what the policy does when it matches.
func (p *Policy) Action() Action { return p.action }

// DryRun reports that the policy is evaluated and not enforced.
func (p *Policy) DryRun() bool { return p.dryRun }

// Warnings says what in the policy this proxy did not understand and therefore
// took in the strictest sense. It is empty for a policy that is fully understood.
func (p *Policy) Warnings() []string { return p.warnings }

func (p *Policy) denies() bool { return p.action != Allow }

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
	open   truth = iota // decided per connection
	always              // always matches
	never               // never matches
)

type rule struct {
	fixed   truth
	clauses []clause
}

func (r *rule) matches(in *input) bool {
	switch r.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range r.clauses {
		if !r.clauses[i].matches(in) {
			return false
		}
	}
	return true
}

type clause struct {
	fixed truth
	anyOf []match
}

func (c *clause) matches(in *input) bool {
	switch c.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range c.anyOf {
		if c.anyOf[i].matches(in) {
			return true
		}
	}
	return false
}

// match holds the conditions that are set, the cheapest first.
type match struct {
	fixed      truth
	conditions []condition
}

func (m *match) matches(in *input) bool {
	switch m.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range m.conditions {
		if !m.conditions[i].holds(in) {
			return false
		}
	}
	return true
}
