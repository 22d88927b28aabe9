package route

import (
	"hash/maphash"
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

// byValue leads to nodes of matches that ask for a value of the same thing; the value
// is the node's segment.
type byValue struct {
	asked asked
	// parent of the nodes, less than wholePath.
	parent int32
	// least of the matches.
	least int32
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
		if c.kind == isExact && !c.invert && c.name[0] != ':' {
			yield(asked{inHeader, c.name}, c.exact)
		}
	}
	for _, c := range m.query {
		if c.kind == isExact && !c.invert {
			yield(asked{inQuery, c.name}, c.exact)
		}
	}
}

// spread puts many entries where their values are.
func (b *builder) spread(entries []int32) *values {
	type key struct {
		asked
		value string
	}
	count := map[key]int{}
	for _, i := range entries {
		b.matches[i].exactConditions(func(what asked, value string) { count[key{what, value}]++ })
	}
	out := &values{}
	for _, i := range entries {
		m := &b.matches[i]
		var rarest key
		fewest := 0
		m.exactConditions(func(what asked, value string) {
			if k := (key{what, value}); fewest == 0 || count[k] < fewest {
				rarest, fewest = k, count[k]
			}
		})
		if fewest == 0 {
			out.rest = append(out.rest, i)
			continue
		}
		at := slices.IndexFunc(out.by, func(v byValue) bool { return v.asked == rarest.asked })
		if at < 0 {
			at = len(out.by)
			b.lists--
			out.by = append(out.by, byValue{asked: rarest.asked, parent: b.lists, least: i})
		}
		n := &b.nodes[b.node(out.by[at].parent, rarest.value)]
		if n.plain {
			// Its first match fits all that comes here.
			continue
		}
		n.entries = append(n.entries, i)
		if len(n.entries) == 1 {
			n.first, n.plain = i, m.asksOnce()
		}
	}
	return out
}

// asksOnce reports whether there is one condition besides the prefix.
func (m *match) asksOnce() bool {
	n := len(m.headers) + len(m.query)
	if m.method != "" {
		n++
	}
	return n == 1 && !m.judgesPath()
}

// first returns the first match that fits, best when that is less. The rest comes last:
// it has the regular expressions.
func (v *values) first(t *table, r *message.Request, best int32) int32 {
	for i := range v.by {
		b := &v.by[i]
		// They are in the order of their least matches.
		if b.least >= best {
			break
		}
		at := b.node(t, r)
		if at == 0 {
			continue
		}
		if n := &t.nodes[at]; n.plain {
			best = min(n.first, best)
		} else {
			best = t.firstOf(n.entries, r, best)
		}
	}
	if len(v.rest) > 0 {
		best = t.firstOf(v.rest, r, best)
	}
	return best
}

// node returns that of the value that r has, 0 without one.
func (b *byValue) node(t *table, r *message.Request) int32 {
	switch b.asked.in {
	case inMethod:
		return t.find(b.parent, r.Method)
	case inHeader:
		for i := range r.Header {
			if r.Header[i].Name != b.asked.name {
				continue
			}
			if r.Header[i+1:].Has(b.asked.name) {
				return b.joined(t, r.Header[i:])
			}
			return t.find(b.parent, r.Header[i].Value)
		}
	case inQuery:
		raw, found := firstParameter(r.Query, b.asked.name)
		switch {
		case !found:
			return 0
		case escaped(raw):
			return b.decoded(t, raw)
		}
		return t.find(b.parent, raw)
	}
	return 0
}

// joined is node for a field that is repeated. The room for it is not in node, where
// all requests would pay for clearing it.
func (b *byValue) joined(t *table, h message.Header) int32 {
	var buf [joinedBytes]byte
	value := appendField(buf[:0], h, b.asked.name)
	return lookup(t, maphash.Bytes(seed, value), b.parent, value)
}

func (b *byValue) decoded(t *table, raw string) int32 {
	var buf [joinedBytes]byte
	value := appendDecoded(buf[:0], raw)
	return lookup(t, maphash.Bytes(seed, value), b.parent, value)
}
