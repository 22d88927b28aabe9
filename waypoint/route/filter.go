package route

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"google.golang.org/protobuf/proto"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Filter has one of its fields set.
type Filter struct {
	RequestHeaders  *HeaderChange
	ResponseHeaders *HeaderChange
	Redirect        *Redirect
	Rewrite         *Rewrite
	Mirror          *Mirror
	CORS            *CORS
	ExternalAuth    *ExternalAuth
	Fault           *Fault
	Direct          *Direct
}

// Filters in the order in which they apply.
type Filters []Filter

// Mirror sends a copy of some requests to another backend.
type Mirror struct {
	// Backend whose weight says nothing. Without Fault, it can be reached.
	Backend Backend

	numerator, denominator uint64
}

// Picks reports whether the request with u is copied; u is as in Rule.Pick, and may be
// the very number that it got.
func (m *Mirror) Picks(u uint64) bool {
	if m.Backend.Fault != "" {
		return false
	}
	at, _ := bits.Mul64(u*apart, m.denominator)
	return at < m.numerator
}

// apart makes the steps of a Spread ones of 2^64 divided by the square root of 2, so
// that those copied are not all of the same backend: it is that number (odd) times the
// inverse of step modulo 2^64. All other numbers stay as evenly spread as they are.
const apart = 0x762B4D6186B8B2B1

// ExternalAuth asks an authorization service first.
type ExternalAuth struct {
	// Backend whose weight says nothing; with a Fault all is refused.
	Backend Backend
	// Spec is how it is asked. Nobody changes it.
	Spec *api.ExternalAuth
}

// compileFilters returns as many as there are; those it has an error about are empty.
func compileFilters(filters []*api.Filter) (Filters, error) {
	out := make(Filters, len(filters))
	var errs []error
	for i, f := range filters {
		compiled, err := compileFilter(f)
		if err == nil && unknownBelow(f.ProtoReflect()) {
			err = errors.New("something that this waypoint does not know")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("filter %d: %w", i, err))
			continue
		}
		out[i] = compiled
	}
	return out, errors.Join(errs...)
}

func compileFilter(f *api.Filter) (out Filter, err error) {
	switch kind := f.GetKind().(type) {
	case *api.Filter_RequestHeaders:
		out.RequestHeaders, err = compileHeaderChange(kind.RequestHeaders)
	case *api.Filter_ResponseHeaders:
		out.ResponseHeaders, err = compileHeaderChange(kind.ResponseHeaders)
	case *api.Filter_Redirect:
		out.Redirect, err = compileRedirect(kind.Redirect)
	case *api.Filter_Rewrite:
		out.Rewrite, err = compileRewrite(kind.Rewrite)
	case *api.Filter_Mirror:
		out.Mirror, err = compileMirror(kind.Mirror)
	case *api.Filter_Cors:
		out.CORS, err = compileCORS(kind.Cors)
	case *api.Filter_ExternalAuth:
		out.ExternalAuth, err = compileExternalAuth(kind.ExternalAuth)
	case *api.Filter_DirectResponse:
		out.Direct, err = compileDirect(kind.DirectResponse)
	case *api.Filter_Fault:
		out.Fault, err = compileFault(kind.Fault)
	default:
		err = errors.New("a kind that this waypoint does not know")
	}
	return out, err
}

func compileMirror(m *api.Mirror) (*Mirror, error) {
	out := &Mirror{
		Backend:     compileBackend(m.GetBackend()),
		numerator:   uint64(m.GetNumerator()),
		denominator: uint64(m.GetDenominator()),
	}
	if out.denominator == 0 {
		out.numerator, out.denominator = 1, 1
	}
	if out.numerator > out.denominator {
		return nil, fmt.Errorf("mirrors %d of %d requests", out.numerator, out.denominator)
	}
	return out, nil
}

func compileExternalAuth(a *api.ExternalAuth) (*ExternalAuth, error) {
	out := &ExternalAuth{Backend: compileBackend(a.GetBackend()), Spec: a}
	for _, names := range [][]string{
		a.GetAllowedHeaders(), a.GetAllowedResponseHeaders(), a.GetAllowedDenialHeaders(), a.GetAllowedClientHeaders(),
	} {
		for _, n := range names {
			// A star, which such a list may have, is a character of names, too.
			if !message.ValidName(n) && !strings.HasPrefix(n, ":") {
				return nil, fmt.Errorf("%q is no name of a header field in lower case", n)
			}
		}
	}
	for _, f := range a.GetAddedHeaders() {
		if !message.ValidName(f.GetName()) || !message.ValidValue(f.GetValue()) {
			return nil, fmt.Errorf("%q is no header field with a name in lower case", f.GetName())
		}
	}
	if p := a.GetPathPrefix(); p != "" {
		prefix, err := replacement(p)
		if err != nil {
			return nil, err
		}
		out.Spec = proto.Clone(a).(*api.ExternalAuth)
		out.Spec.PathPrefix = prefix
	}
	return out, nil
}

// Redirect returns the redirect, nil without one.
func (f Filters) Redirect() *Redirect {
	for i := range f {
		if f[i].Redirect != nil {
			return f[i].Redirect
		}
	}
	return nil
}

// CORS returns the filter of that kind, nil without one.
func (f Filters) CORS() *CORS {
	for i := range f {
		if f[i].CORS != nil {
			return f[i].CORS
		}
	}
	return nil
}

func (f Filters) needPrefix() bool {
	for i := range f {
		switch {
		case f[i].Redirect != nil && f[i].Redirect.path.kind == replacePrefix:
			return true
		case f[i].Rewrite != nil && f[i].Rewrite.path.kind == replacePrefix:
			return true
		}
	}
	return false
}

// Request applies what changes requests.
func (f Filters) Request(d Decision, r *message.Request) {
	for i := range f {
		switch {
		case f[i].RequestHeaders != nil:
			f[i].RequestHeaders.Apply(&r.Header)
		case f[i].Rewrite != nil:
			f[i].Rewrite.Apply(d, r)
		}
	}
}

// Response applies what changes responses, but for CORS.
func (f Filters) Response(r *message.Response) {
	for i := range f {
		if f[i].ResponseHeaders != nil {
			f[i].ResponseHeaders.Apply(&r.Header)
		}
	}
}
