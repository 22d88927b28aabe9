package authz

import (
	"slices"
	"strings"
)

// field is the attribute that a condition looks at.
type field uint8

// The order is the order of evaluation: cheap comparisons first.
const (
	fieldDestinationPort field = iota
	fieldSourceIP
	fieldDestinationIP
	fieldNamespace
	fieldServiceAccount
	fieldPrincipal
)

// name is the field as users know it from AuthorizationPolicy.
func (f field) name() string {
	switch f {
	case fieldDestinationPort:
		return "destination port"
	case fieldSourceIP:
		return "source address"
	case fieldDestinationIP:
		return "destination address"
	case fieldNamespace:
		return "source namespace"
	case fieldServiceAccount:
		return "source service account"
	default:
		return "source principal"
	}
}

// condition is one field of a match. Only the list of its field is used.
type condition struct {
	field field
	not   bool
	// unknownHolds is what a value that this proxy does not understand answers;
	// it is chosen by the policy's action so that the policy gets stricter.
	unknown      bool
	unknownHolds bool

	ports    []uint16 // sorted
	ranges   Ranges
	strings  stringSet
	accounts []account
}

type account struct{ namespace, name string }

func (c *condition) holds(in *input) bool {
	if c.unknown {
		// One unknown value: a positive condition has it as one more alternative,
		// a negated one as one more exclusion.
		if c.unknownHolds {
			if !c.not {
				return true
			}
		} else if c.not {
			return false
		}
	}
	return c.any(in) != c.not
}

// any reports whether one of the values that we understand matches.
func (c *condition) any(in *input) bool {
	switch c.field {
	case fieldDestinationPort:
		_, ok := slices.BinarySearch(c.ports, in.port)
		return ok
	case fieldSourceIP:
		return c.ranges.Contains(in.source)
	case fieldDestinationIP:
		return c.ranges.Contains(in.destination)
	case fieldNamespace:
		return in.hasIdentity && c.strings.has(in.namespace)
	case fieldPrincipal:
		return in.hasIdentity && c.strings.has(in.principal)
	case fieldServiceAccount:
		if !in.hasIdentity {
			return false
		}
		for i := range c.accounts {
			if c.accounts[i].name == in.account && c.accounts[i].namespace == in.namespace {
				return true
			}
		}
		return false
	default:
		return false
	}
}

// stringSet matches a string by presence, exactly, by prefix or by suffix.
type stringSet struct {
	presence bool
	exact    []string // sorted
	prefixes []string
	suffixes []string
}

func (s *stringSet) has(v string) bool {
	if s.presence {
		return true
	}
	// Few values are the rule, and comparing lengths rejects most of them.
	if len(s.exact) <= 8 {
		for _, e := range s.exact {
			if e == v {
				return true
			}
		}
	} else if _, ok := slices.BinarySearch(s.exact, v); ok {
		return true
	}
	for _, p := range s.prefixes {
		if strings.HasPrefix(v, p) {
			return true
		}
	}
	for _, p := range s.suffixes {
		if strings.HasSuffix(v, p) {
			return true
		}
	}
	return false
}
