// Package route decides what becomes of a request at a waypoint: which rule of
// which route applies, and what its filters make of the messages.
//
// It owns the compiled form of what the control plane sends of a service's routes,
// the search for the first match that fits, and everything that is a function of
// rule and message alone: redirects, rewrites, changes of headers, CORS, the choice
// among weighted backends and of requests to mirror. It does no I/O, keeps no state
// and starts nothing; endpoints, retries and time belong to others. A compiled
// Service is never changed, so that any number of goroutines may use it.
//
// The search costs the same with one rule and with thousands, and allocates nothing:
// paths are found in a tree of their segments, and where many matches share a path,
// by the values of the fields they ask for. It grows only with regular expressions
// that begin alike, which are tried one after the other, and with the number of
// different fields that the matches of one path ask for. Explain walks all matches in
// their order instead, and tells of each why it did not fit; tests hold both to the
// same decision.
//
//	s, err := route.Compile(fromControlPlane)
//	p := s.Port(80) // nil: no such port
//	d := p.Match(clientNamespace, request)
//	switch {
//	case d.Kind == route.NotFound: // 404
//	case d.Kind == route.Default: // to the service itself
//	case d.Fault() != "": // 500
//	default: // d.Rule.Filters, d.Rule.Pick
//	}
package route
