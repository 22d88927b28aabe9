package route

import (
	"fmt"
	"hash/maphash"
	"math"
	"strings"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// none is the index of no match; all others are less.
const none = int32(math.MaxInt32)

// table holds the matches of all routes that apply together, found by path: exact
// ones in one step, prefixes and what regular expressions begin with along the tree
// of their segments.
type table struct {
	namespace string
	// rules are those of the routes, and after them copies that are faulty for the
	// sake of a match.
	rules   []Rule
	matches []match
	// ruleOf has the rule of each match apart, so that deciding does not touch more
	// memory than it must.
	ruleOf []int32

	// nodes: 0 is the root, which all paths are under.
	nodes []node
	// slots is a hash table of the nodes but the root, by parent and segment; its
	// length is a power of two, at least twice their number.
	slots []slot
	// hasExact tells that there are nodes of whole paths.
	hasExact bool

	// Of connections: the least match for an exact server name, for those that end
	// alike (".example.com"), and for all.
	names, suffixes map[string]int32
	anyName         int32
}

// node is a prefix of whole segments, or a whole path, or a value that many matches
// of one of those are told apart by. It fills one line of the processor's cache.
type node struct {
	// segment is the last one, without slashes; of a whole path, the path.
	segment string
	// parent is the node of the prefix without it; wholePath of a whole path, a
	// byValue's of a value.
	parent int32
	// first is the least match here, above the least of its ancestors.
	first, above int32
	// leaf tells that no node has this as its parent.
	leaf bool
	// plain tells that first fits all that comes here.
	plain bool
	// entries are the matches here, in order, up to the first that fits everything.
	// What comes after that one never decides.
	entries []int32
	// values finds them when they are many; else nil.
	values *values
}

type slot struct {
	hash uint64
	// node 0 means that the slot is empty.
	node int32
}

// wholePath is the parent of nodes that are whole paths.
const wholePath = int32(-1)

var seed = maphash.MakeSeed()

// mix makes the hash of a parent and a segment out of the segment's.
func mix(parent int32, h uint64) uint64 { return h ^ uint64(uint32(parent))*step }

func compileTable(t *api.RouteTable, port uint16) (*table, error) {
	if len(t.GetMatches()) > maxMatches {
		return nil, fmt.Errorf("%d matches, of %d that are allowed", len(t.GetMatches()), maxMatches)
	}
	out := &table{
		namespace: t.GetClientNamespace(),
		rules:     make([]Rule, len(t.GetRules())),
		matches:   make([]match, len(t.GetMatches())),
		ruleOf:    make([]int32, len(t.GetMatches())),
		nodes:     make([]node, 1, 1+len(t.GetMatches())),
		names:     map[string]int32{},
		suffixes:  map[string]int32{},
		anyName:   none,
	}
	out.nodes[0].leaf = true
	for i, r := range t.GetRules() {
		out.rules[i] = compileRule(r)
	}
	b := builder{table: out, ids: make(map[nodeKey]int32, len(out.matches)), lists: wholePath}
	rules := len(out.rules)
	for i, m := range t.GetMatches() {
		if m.GetRule() >= uint32(rules) {
			return nil, fmt.Errorf("match %d leads to rule %d of %d", i, m.GetRule(), rules)
		}
		compiled := compileMatch(m, port, out.rules[m.GetRule()].needsPrefix)
		out.matches[i] = compiled
		out.ruleOf[i] = int32(m.GetRule())
		if compiled.fault != "" {
			faulty := out.rules[m.GetRule()]
			faulty.Fault = compiled.fault
			out.ruleOf[i] = int32(len(out.rules))
			out.rules = append(out.rules, faulty)
		}
		b.place(int32(i))
	}
	b.finish()
	return out, nil
}

// builder makes a table's tree.
type builder struct {
	*table
	ids map[nodeKey]int32
	// lists is the parent of the last byValue's nodes.
	lists int32
}

type nodeKey struct {
	parent  int32
	segment string
}

// place puts a match where requests come by that it may fit.
func (b *builder) place(i int32) {
	m := &b.matches[i]
	if m.elsewhere {
		return
	}
	if m.connects() {
		b.placeNames(i, m.serverNames)
	}
	if len(m.serverNames) > 0 {
		return
	}
	var at int32
	switch {
	case m.folded:
		// At the root: the tree tells cases apart.
	case m.kind == pathExact:
		at = b.node(wholePath, m.path)
		b.hasExact = true
	case m.kind == pathPrefix:
		at = b.walk(m.path)
	case m.kind == pathText:
		at = b.walk(m.path[:strings.LastIndexByte(m.path, '/')])
	case m.kind == pathRegex:
		// The last segment of a literal prefix may go on in what follows.
		literal := literalPrefix(m.regex)
		at = b.walk(literal[:max(0, strings.LastIndexByte(literal, '/'))])
	}
	n := &b.nodes[at]
	if len(n.entries) > 0 && b.matches[n.entries[len(n.entries)-1]].plain {
		return
	}
	n.entries = append(n.entries, i)
}

func (b *builder) placeNames(i int32, names []string) {
	if len(names) == 0 {
		b.anyName = min(b.anyName, i)
	}
	for _, name := range names {
		in := b.names
		if suffix, wild := strings.CutPrefix(name, "*"); wild {
			in, name = b.suffixes, suffix
		}
		if _, found := in[name]; !found {
			in[name] = i
		}
	}
}

// walk returns the node of a prefix that begins with a slash or is empty.
func (b *builder) walk(prefix string) int32 {
	at := int32(0)
	for prefix != "" {
		var segment string
		segment, prefix = cutSegment(prefix)
		at = b.node(at, segment)
	}
	return at
}

// cutSegment returns the first segment of a path that begins with a slash, and the
// rest, which is empty or begins with one.
func cutSegment(path string) (segment, rest string) {
	path = path[1:]
	if end := strings.IndexByte(path, '/'); end >= 0 {
		return path[:end], path[end:]
	}
	return path, ""
}

func (b *builder) node(parent int32, segment string) int32 {
	key := nodeKey{parent, segment}
	if at, found := b.ids[key]; found {
		return at
	}
	at := int32(len(b.nodes))
	b.nodes = append(b.nodes, node{segment: segment, parent: parent, leaf: true})
	b.ids[key] = at
	if parent >= 0 {
		b.nodes[parent].leaf = false
	}
	return at
}

// finish computes what the search skips by, and the hash table.
func (b *builder) finish() {
	for i := range len(b.nodes) {
		n := &b.nodes[i]
		n.first, n.above = none, none
		if len(n.entries) > 0 {
			n.first = n.entries[0]
			n.plain = b.matches[n.first].plain
		}
		// A node comes after its parent.
		if i > 0 && n.parent >= 0 {
			p := &b.nodes[n.parent]
			n.above = min(p.first, p.above)
		}
	}
	for i := range len(b.nodes) {
		if entries := b.nodes[i].entries; len(entries) > fewMatches {
			v := b.spread(entries)
			b.nodes[i].values = v
		}
	}
	size := 8
	for size < 2*len(b.nodes) {
		size *= 2
	}
	b.slots = make([]slot, size)
	mask := uint64(size - 1)
	for i := 1; i < len(b.nodes); i++ {
		n := &b.nodes[i]
		h := mix(n.parent, maphash.String(seed, n.segment))
		at := h & mask
		for b.slots[at].node != 0 {
			at = (at + 1) & mask
		}
		b.slots[at] = slot{hash: h, node: int32(i)}
	}
}

// find returns the node of that parent and segment, 0 without one.
func (t *table) find(parent int32, segment string) int32 {
	return lookup(t, maphash.String(seed, segment), parent, segment)
}

// lookup is find with the segment's hash.
func lookup[S string | []byte](t *table, h uint64, parent int32, segment S) int32 {
	h = mix(parent, h)
	mask := uint64(len(t.slots) - 1)
	for at := h & mask; ; at = (at + 1) & mask {
		s := &t.slots[at]
		if s.node == 0 {
			return 0
		}
		if s.hash == h {
			if n := &t.nodes[s.node]; n.parent == parent && n.segment == string(segment) {
				return s.node
			}
		}
	}
}

// request returns the first match that fits.
func (t *table) request(r *message.Request) int32 {
	best := none
	if t.hasExact {
		if n := t.find(wholePath, r.Path); n != 0 {
			best = t.within(&t.nodes[n], r, best)
		}
	}
	// Down to the longest prefix that has a node, and up again: the longer prefix has
	// precedence as a rule, so that the shorter ones need no look.
	at := int32(0)
	if strings.HasPrefix(r.Path, "/") {
		for rest := r.Path; rest != "" && !t.nodes[at].leaf; {
			var segment string
			segment, rest = cutSegment(rest)
			next := t.find(at, segment)
			if next == 0 {
				break
			}
			at = next
		}
	}
	for {
		n := &t.nodes[at]
		if n.first < best {
			best = t.within(n, r, best)
		}
		if at == 0 || n.above >= best {
			return best
		}
		at = n.parent
	}
}

// within returns the first match of n that fits, best when that is less.
func (t *table) within(n *node, r *message.Request, best int32) int32 {
	switch {
	case n.plain:
		return min(n.first, best)
	case n.values != nil:
		return n.values.first(t, r, best)
	}
	return t.firstOf(n.entries, r, best)
}

func (t *table) firstOf(entries []int32, r *message.Request, best int32) int32 {
	for _, i := range entries {
		if i >= best {
			break
		}
		if t.matches[i].fitsRest(r) {
			return i
		}
	}
	return best
}

// connection returns the first match that fits a connection.
func (t *table) connection(serverName string) int32 {
	best := t.anyName
	if serverName == "" {
		return best
	}
	name := strings.ToLower(serverName)
	if i, found := t.names[name]; found {
		best = min(best, i)
	}
	if len(t.suffixes) == 0 {
		return best
	}
	for i := 1; i < len(name); i++ {
		if name[i] != '.' {
			continue
		}
		if m, found := t.suffixes[name[i:]]; found {
			best = min(best, m)
		}
	}
	return best
}

func (t *table) decision(i int32) Decision {
	if i == none {
		return Decision{Kind: NotFound}
	}
	return Decision{Kind: Routed, Rule: &t.rules[t.ruleOf[i]], match: &t.matches[i]}
}
