package route

import (
	"errors"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Matcher judges requests by the conditions of a match, apart from all routes. It is
// immutable.
type Matcher struct{ m match }

// NewMatcher compiles the conditions on requests of m. The error says which of them
// cannot be, or is not known.
func NewMatcher(m *api.Match) (*Matcher, error) {
	out := &Matcher{m: compileMatch(m, 0, false)}
	if out.m.fault != "" {
		return nil, errors.New(out.m.fault)
	}
	return out, nil
}

// Fits reports whether all conditions hold.
func (m *Matcher) Fits(r *message.Request) bool { return m.m.fitsPath(r.Path) && m.m.fitsRest(r) }

// AppendParameter appends the value, decoded, of the first query parameter of that
// name, and reports whether there is one.
func AppendParameter(b []byte, query, name string) ([]byte, bool) {
	raw, found := firstParameter(query, name)
	if !found {
		return b, false
	}
	return appendDecoded(b, raw), true
}
