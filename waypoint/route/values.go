package route

import (
	"slices"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// values finds the matches of one path by the value of something they ask for. Each
// match stands where the rarest of its exact conditions puts it.
type values struct {
	by []byValue
	// rest have no exact condition.
	rest []int32
}

// byValue holds matches that ask for a value of the same thing.
type byValue struct {
	asked asked
	// least of the matches.
	least   int32
	matches map[string][]int32
}

// asked is what a condition looks at.
type asked struct {
	in   place
	name string
}

type place uint8

const (
	inMethod place = iota
	inHeader
	inQuery
)

// exactConditions calls yield for each.
func (m *match) exactConditions(yield func(what asked, value string)) {
	if m.method != "" {
		yield(asked{inMethod, ""}, m.method)
	}
	for _, c := range m.headers {
		if c.regex == nil {
			yield(asked{inHeader, c.name}, c.exact)
		}
	}
	for _, c := range m.query {
		if c.regex == nil {
			yield(asked{inQuery, c.name}, c.exact)
		}
	}
}

// spread makes the values of many entries.
func (t *table) spread(entries []int32) *values {
	type key struct {
		asked
		value string
	}
	count := map[key]int{}
	for _, i := range entries {
		t.matches[i].exactConditions(func(what asked, value string) { count[key{what, value}]++ })
	}
	out := &values{}
	for _, i := range entries {
		var rarest key
		fewest := 0
		t.matches[i].exactConditions(func(what asked, value string) {
			if k := (key{what, value}); fewest == 0 || count[k] < fewest {
				rarest, fewest = k, count[k]
			}
		})
		if fewest == 0 {
			out.rest = append(out.rest, i)
			continue
		}
		at := slices.IndexFunc(out.by, func(b byValue) bool { return b.asked == rarest.asked })
		if at < 0 {
			at = len(out.by)
			out.by = append(out.by, byValue{asked: rarest.asked, least: i, matches: map[string][]int32{}})
		}
		in := out.by[at].matches
		in[rarest.value] = append(in[rarest.value], i)
	}
	return out
}

// first returns the first match that fits, best when that is less.
func (v *values) first(t *table, r *message.Request, best int32) int32 {
	best = t.firstOf(v.rest, r, best)
	for i := range v.by {
		b := &v.by[i]
		// They are in the order of their least matches.
		if b.least >= best {
			break
		}
		best = t.firstOf(b.entries(r), r, best)
	}
	return best
}

// entries returns the matches that ask for the value that r has.
func (b *byValue) entries(r *message.Request) []int32 {
	var buf [joinedBytes]byte
	switch b.asked.in {
	case inMethod:
		return b.matches[r.Method]
	case inHeader:
		for i := range r.Header {
			if r.Header[i].Name != b.asked.name {
				continue
			}
			if !r.Header[i+1:].Has(b.asked.name) {
				return b.matches[r.Header[i].Value]
			}
			joined, _ := appendField(buf[:0], r.Header[i:], b.asked.name)
			return b.matches[string(joined)]
		}
	case inQuery:
		raw, found := firstParameter(r.Query, b.asked.name)
		if !found {
			return nil
		}
		if escaped(raw) {
			return b.matches[string(appendDecoded(buf[:0], raw))]
		}
		return b.matches[raw]
	}
	return nil
}
