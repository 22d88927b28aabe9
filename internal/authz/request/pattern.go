package request

import (
	"slices"
	"strings"
)

// patterns are the values of one condition on a text; one that fits is enough.
type patterns struct {
	present   bool
	exact     []string // sorted
	prefixes  []string
	suffixes  []string
	templates []template
	// globs are wide readings of values with a star elsewhere than at one end: the
	// texts between the stars.
	globs [][]string
}

// add takes one value as AuthorizationPolicy writes it.
func (p *patterns) add(value string, wide bool) {
	stars := strings.Count(value, "*")
	switch {
	case value == "*":
		p.present = true
		return
	case strings.HasPrefix(value, "*"):
		p.suffixes = append(p.suffixes, value[1:])
		stars--
	case strings.HasSuffix(value, "*"):
		p.prefixes = append(p.prefixes, value[:len(value)-1])
		stars--
	default:
		p.exact = append(p.exact, value)
	}
	if wide && stars > 0 {
		p.globs = append(p.globs, strings.Split(value, "*"))
	}
}

// seal must follow the last add.
func (p *patterns) seal() { slices.Sort(p.exact) }

// match reports whether one value fits v, which is there; wide as the condition is.
func (p *patterns) match(v string, wide bool) bool {
	// Istio's documentation says that a star fits values that are not empty; Envoy
	// takes an empty header for present. Each counts where it is the stricter.
	if p.present && (v != "" || wide) {
		return true
	}
	// Few values are the rule, and comparing lengths rejects most of them.
	if len(p.exact) <= 8 {
		for _, e := range p.exact {
			if e == v {
				return true
			}
		}
	} else if _, ok := slices.BinarySearch(p.exact, v); ok {
		return true
	}
	for _, s := range p.prefixes {
		if strings.HasPrefix(v, s) {
			return true
		}
	}
	for _, s := range p.suffixes {
		if strings.HasSuffix(v, s) {
			return true
		}
	}
	for i := range p.templates {
		if p.templates[i].match(v, wide) {
			return true
		}
	}
	for _, parts := range p.globs {
		if glob(parts, v) {
			return true
		}
	}
	return false
}

// glob reports whether v is the parts in order with anything between them.
func glob(parts []string, v string) bool {
	last := len(parts) - 1
	v, ok := strings.CutPrefix(v, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		// The leftmost place leaves the most for the others.
		i := strings.Index(v, part)
		if i < 0 {
			return false
		}
		v = v[i+len(part):]
	}
	return strings.HasSuffix(v, parts[last])
}

// texts lists the values as they were written, a few of them.
func (p *patterns) texts() []string {
	var all []string
	if p.present {
		all = append(all, "any")
	}
	all = append(all, p.exact...)
	for _, s := range p.prefixes {
		all = append(all, s+"*")
	}
	for _, s := range p.suffixes {
		all = append(all, "*"+s)
	}
	for i := range p.templates {
		all = append(all, p.templates[i].String())
	}
	return all
}
