package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// naive decides as the contract is written: the first match of which all conditions
// hold. It returns its index, -1 without one.
func naive(t *api.RouteTable, r *message.Request) int {
	params := map[string]string{}
	for pair := range strings.SplitSeq(r.Query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		key, _ = url.QueryUnescape(key)
		value, _ = url.QueryUnescape(value)
		if _, have := params[key]; pair != "" && !have {
			params[key] = value
		}
	}
	for i, m := range t.Matches {
		if len(m.ServerNames) == 0 && pathFits(m.Path, r.Path) && (m.Method == "" || m.Method == r.Method) &&
			(len(m.Ports) == 0 || slices.Contains(m.Ports, 80)) && fieldsFit(m.Headers, lookup(r)) &&
			fieldsFit(m.Query, func(name string) (string, bool) { v, ok := params[name]; return v, ok }) {
			return i
		}
	}
	return -1
}

// lookup finds fields, and what has a name like one.
func lookup(r *message.Request) func(name string) (string, bool) {
	return func(name string) (string, bool) {
		switch name {
		case ":authority":
			return r.Authority, r.Authority != ""
		case ":method":
			return r.Method, true
		case ":scheme":
			return r.Scheme, true
		}
		return r.Header.Lookup(name)
	}
}

func pathFits(p *api.PathMatch, path string) bool {
	if p.GetIgnoreCase() && p.GetRegex() == "" {
		folded := proto.Clone(p).(*api.PathMatch)
		folded.IgnoreCase = false
		switch kind := folded.Kind.(type) {
		case *api.PathMatch_Exact:
			kind.Exact = strings.ToLower(kind.Exact)
		case *api.PathMatch_Prefix:
			kind.Prefix = strings.ToLower(kind.Prefix)
		case *api.PathMatch_TextPrefix:
			kind.TextPrefix = strings.ToLower(kind.TextPrefix)
		}
		return pathFits(folded, strings.ToLower(path))
	}
	switch kind := p.GetKind().(type) {
	case *api.PathMatch_TextPrefix:
		return strings.HasPrefix(path, kind.TextPrefix)
	case *api.PathMatch_Exact:
		return path == kind.Exact
	case *api.PathMatch_Prefix:
		want := strings.Split(strings.TrimSuffix(kind.Prefix, "/"), "/")
		have := strings.Split(path, "/")
		if len(want) == 1 {
			return true
		}
		return len(have) >= len(want) && strings.Join(have[:len(want)], "/") == strings.Join(want, "/")
	case *api.PathMatch_Regex:
		return regexp.MustCompile("^(?:" + kind.Regex + ")$").MatchString(path)
	}
	return true
}

func fieldsFit(fields []*api.FieldMatch, lookup func(string) (string, bool)) bool {
	for _, f := range fields {
		v, ok := lookup(f.Name)
		switch kind := f.Kind.(type) {
		case *api.FieldMatch_Exact:
			ok = ok && v == kind.Exact
		case *api.FieldMatch_Regex:
			ok = ok && regexp.MustCompile("^(?:"+kind.Regex+")$").MatchString(v)
		case *api.FieldMatch_Prefix:
			ok = ok && strings.HasPrefix(v, kind.Prefix)
		}
		if ok == f.Invert {
			return false
		}
	}
	return true
}

// choices makes routes and requests out of so few words that they meet often.
type choices struct{ *rand.Rand }

func (c choices) of(words ...string) string { return words[c.IntN(len(words))] }

func (c choices) path() string {
	n := c.IntN(4)
	if n == 0 {
		return "/"
	}
	var b strings.Builder
	for range n {
		b.WriteString("/" + c.of("a", "b", "ab", "A", "c", "d%20e", "."+"x", ""))
	}
	if c.IntN(4) == 0 {
		b.WriteByte('/')
	}
	return b.String()
}

func (c choices) field() string {
	name := c.of("h1", "h2", "q 1", "q2")
	if c.IntN(4) == 0 {
		return name + "~" + c.of("v.", "v1|v2", ".*", "", "(?i)V1", "v1,v2", `a b`)
	}
	return name + "=" + c.of("v1", "v2", "v3", "", "v1,v2", "a b", "%")
}

func (c choices) match(rules int) *api.Match {
	var conditions []string
	switch c.IntN(8) {
	case 0, 1, 2:
		conditions = append(conditions, "prefix "+c.path())
	case 3, 4:
		conditions = append(conditions, "exact "+c.path())
	case 5:
		conditions = append(conditions, "regex "+c.of("/a.*", "/a/b", "/(a|b)/.*", ".*", "/a/[^/]+", "(?i)/A/.*", "/ab?/.*", "\\*", "/a//.*|/c"))
	}
	if c.IntN(4) == 0 {
		conditions = append(conditions, "method "+c.of("GET", "POST", "PUT"))
	}
	for range c.IntN(3) {
		conditions = append(conditions, c.of("header ", "query ")+c.field())
	}
	if c.IntN(20) == 0 {
		conditions = append(conditions, "server a.example")
	}
	m := match(conditions...)
	m.Rule = uint32(c.IntN(rules))
	c.extend(m)
	return m
}

// extend makes of some matches what only VirtualServices ask.
func (c choices) extend(m *api.Match) {
	if c.IntN(6) == 0 {
		m.Path = &api.PathMatch{Kind: &api.PathMatch_TextPrefix{TextPrefix: c.path()}}
	}
	if m.Path.GetKind() != nil && c.IntN(6) == 0 {
		m.Path.IgnoreCase = true
	}
	if c.IntN(10) == 0 {
		m.Ports = []uint32{uint32(79 + c.IntN(2)), 81}
	}
	if c.IntN(10) == 0 {
		name := c.of(":authority", ":method", ":scheme")
		m.Headers = append(m.Headers, &api.FieldMatch{Name: name, Kind: &api.FieldMatch_Prefix{Prefix: c.of("s", "G", "http", "")}})
	}
	for _, f := range slices.Concat(m.Headers, m.Query) {
		switch c.IntN(8) {
		case 0:
			f.Kind = &api.FieldMatch_Prefix{Prefix: c.of("v", "v1", "", "a b")}
		case 1:
			f.Kind = &api.FieldMatch_Present{Present: true}
		}
		f.Invert = c.IntN(8) == 0
	}
}

func (c choices) table(matches int) *api.RouteTable {
	rules := 1 + c.IntN(5)
	t := &api.RouteTable{}
	for i := range rules {
		t.Rules = append(t.Rules, &api.Rule{
			Ref:      &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Rule: fmt.Sprint(i)},
			Backends: to("echo"),
		})
	}
	for range matches {
		t.Matches = append(t.Matches, c.match(rules))
	}
	return t
}

func (c choices) request() *message.Request {
	r := get(c.path())
	if c.IntN(30) == 0 {
		r.Path = c.of("*", "")
	}
	r.Method = c.of("GET", "POST", "PUT", "OPTIONS")
	for range c.IntN(4) {
		r.Header.Add(c.of("h1", "h2", "h3"), c.of("v1", "v2", "v3", "v1,v2", "a b", "", "%"))
	}
	for range c.IntN(4) {
		r.HasQuery = true
		if r.Query != "" {
			r.Query += "&"
		}
		r.Query += c.of("q+1", "q%201", "q2", "%712", "h1", "q3") + c.of("", "=", "=v1", "=v2", "=v%31", "=v1%2Cv2", "=a+b", "=a%20b", "=%25")
	}
	return r
}

// TestRandomTablesAgainstANaiveSearch holds the tree, and Explain, to the contract's
// words.
func TestRandomTablesAgainstANaiveSearch(t *testing.T) {
	const tables = 1000
	c := choices{rand.New(rand.NewPCG(1, 2))}
	hits := 0
	for n := range tables {
		// Many matches on the few paths make nodes with many entries.
		want := c.table(c.IntN([]int{2, 10, 100}[n%3]))
		p := compile(t, service(want)).Port(80)
		for range 30 {
			r := c.request()
			d := p.Match("", r)
			i := naive(want, r)
			if i < 0 {
				if d.Kind != route.NotFound {
					t.Fatalf("%s %s %v: %v, want nothing\n%v", r.Method, r.Target(), r.Header, d.Rule.Name, want)
				}
			} else {
				hits++
				if d.Kind != route.Routed || d.Rule.Ref.Rule != want.Rules[want.Matches[i].Rule].Ref.Rule {
					t.Fatalf("%s %s %v: %v, want match %d\n%v", r.Method, r.Target(), r.Header, d, i, want)
				}
			}
			e := p.Explain("", r)
			if e.Decision != d.Kind.String() || i >= 0 && (e.Rest != len(want.Matches)-i-1 || e.Rule != d.Rule.Name) ||
				len(e.Considered)+e.Rest != len(want.Matches) {
				t.Fatalf("%s %s %v: explained as %+v, want match %d", r.Method, r.Target(), r.Header, e, i)
			}
		}
	}
	if hits < tables {
		t.Errorf("only %d requests found a match", hits)
	}
}

func TestConnectionsAgainstANaiveSearch(t *testing.T) {
	c := choices{rand.New(rand.NewPCG(3, 4))}
	names := []string{"a.example", "b.example", "x.a.example", "example", "y.x.a.example", "", "A.Example", ".example", "a."}
	hits := 0
	for range 2000 {
		want := &api.RouteTable{Rules: []*api.Rule{{Backends: to("echo")}}}
		for range c.IntN(8) {
			var m *api.Match
			switch c.IntN(4) {
			case 0:
				m = match(c.of("prefix /a", "exact /", "method GET", "header a=b", "query a=b", "regex .*"))
			case 1:
				m = match("prefix /")
			default:
				m = match("server "+c.of("a.example", "*.example", "*.a.example", "b.example", "example"), "server "+c.of("b.example", "*.x.a.example"))
				if c.IntN(8) == 0 {
					m = &api.Match{}
				}
			}
			want.Matches = append(want.Matches, m)
		}
		p := compile(t, service(want)).Port(80)
		for _, name := range names {
			first := -1
			for i, m := range want.Matches {
				if len(m.Headers)+len(m.Query)+len(m.Method) > 0 || m.Path.GetKind() != nil && m.Path.GetPrefix() != "/" {
					continue
				}
				fits := len(m.ServerNames) == 0
				for _, s := range m.ServerNames {
					lower := strings.ToLower(name)
					suffix, wild := strings.CutPrefix(s, "*")
					fits = fits || lower == s || wild && strings.HasSuffix(lower, suffix) && lower != suffix
				}
				if fits {
					first = i
					break
				}
			}
			d, e := p.Connect("", name), p.ExplainConnect("", name)
			if (d.Kind == route.Routed) != (first >= 0) || e.Decision != d.Kind.String() ||
				first >= 0 && e.Rest != len(want.Matches)-first-1 {
				t.Fatalf("%q: %v, %+v, want match %d of %v", name, d.Kind, e, first, want)
			}
			if first >= 0 {
				hits++
			}
		}
	}
	if hits < 2000 {
		t.Errorf("only %d connections found a match", hits)
	}
}

// FuzzMatch makes table and request from one seed.
func FuzzMatch(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint16(20))
	f.Fuzz(func(t *testing.T, a, b uint64, matches uint16) {
		c := choices{rand.New(rand.NewPCG(a, b))}
		want := c.table(int(matches % 200))
		p := compile(t, service(want)).Port(80)
		r := c.request()
		d, i := p.Match("", r), naive(want, r)
		if (d.Kind == route.Routed) != (i >= 0) || i >= 0 && d.Rule.Ref.Rule != want.Rules[want.Matches[i].Rule].Ref.Rule {
			t.Fatalf("%s %s %v: %v, want match %d\n%v", r.Method, r.Target(), r.Header, d, i, want)
		}
	})
}

// FuzzQuery holds the first parameter of a name to what net/url makes of the same
// query, where that has an opinion.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"a=b", "a=b&a=c", "%61=%62+c", "a", "=a", "&&a=1", "a=%", "a=%zz&b=1", "a=b=c", "a+b=1"} {
		f.Add(q, "a", "b")
	}
	f.Fuzz(func(t *testing.T, query, name, value string) {
		values, err := url.ParseQuery(query)
		if err != nil || name == "" || strings.ContainsAny(query, ";") {
			return
		}
		rules := []rule{{matches: []*api.Match{{Query: []*api.FieldMatch{
			{Name: name, Kind: &api.FieldMatch_Exact{Exact: value}},
		}}}, backends: to("a")}}
		// Once alone, once among so many that they are found by value.
		for range 2 {
			p := port(t, rules...)
			r := get("/")
			r.Query, r.HasQuery = query, true
			want := "404"
			if v, ok := values[name]; ok && v[0] == value {
				want = "a"
			}
			if got := backendOf(t, p, r); got != want && !(want == "404" && got == "other") {
				t.Fatalf("%q: %s=%q is %s, want %s (%d rules)", query, name, value, got, want, len(rules))
			}
			for range 20 {
				rules = append(rules, rule{matches: []*api.Match{match("query " + "x=" + fmt.Sprint(len(rules)))}, backends: to("other")})
			}
		}
	})
}
