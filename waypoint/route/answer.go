package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// tell fills in what the rule of d does with r, a request on that port, besides sending
// it on.
func (e *Explanation) tell(d Decision, r *message.Request, port uint16) {
	if d.Rule == nil || d.Fault() != "" {
		return
	}
	filters := d.Rule.Filters
	for _, kind := range filters.kinds() {
		if !slices.Contains(e.Filters, kind) {
			e.Filters = append(e.Filters, kind)
		}
	}
	if r == nil {
		return
	}
	if cors := filters.CORS(); cors != nil {
		if a := cors.Preflight(r); a != nil {
			e.Status, e.Answer = a.Status, fmt.Sprintf("CORS preflight, allowed: %d", a.Status)
			if a.Status >= 400 {
				e.Answer = fmt.Sprintf("CORS preflight, not allowed: %d", a.Status)
			}
			return
		}
	}
	for i := range filters {
		auth := filters[i].ExternalAuth
		if auth == nil {
			continue
		}
		if why := auth.Backend.Fault; why != "" {
			e.Status, e.Answer = 500, fmt.Sprintf("external authorizer %s cannot be asked: %s", auth.name(), why)
			return
		}
		e.Authorizers = append(e.Authorizers, auth.name())
	}
	if to := filters.Redirect(); to != nil {
		e.Status, e.Answer = to.status, fmt.Sprintf("redirect %d to %s", to.status, to.location(d, r, port))
		return
	}
	if a := filters.Direct(); a != nil {
		e.Status, e.Answer = a.Status, fmt.Sprintf("direct response %d", a.Status)
		return
	}
	for i := range d.Rule.Backends {
		for j := range d.Rule.Backends[i].Filters {
			auth := d.Rule.Backends[i].Filters[j].ExternalAuth
			if auth != nil && d.Rule.Backends[i].Weight > 0 && !slices.Contains(e.Authorizers, auth.name()) {
				e.Authorizers = append(e.Authorizers, auth.name())
			}
		}
	}
	for i := range filters {
		f := filters[i].Fault
		if f == nil || !f.Hits(r) {
			continue
		}
		name := strings.TrimSuffix(f.Name, "/") // a FaultPolicy has no rules
		if f.Delay != nil && f.Delay.share.numerator > 0 {
			e.Faults = append(e.Faults, fmt.Sprintf("%s delays %s by %v", name, f.Delay.share, f.Delay.Duration))
		}
		if f.Abort == nil || f.Abort.share.numerator == 0 {
			continue
		}
		e.Faults = append(e.Faults, fmt.Sprintf("%s %s %s", name, f.Abort.verb(), f.Abort.share)+f.Abort.with())
		if f.Abort.share.whole() && e.Answer == "" {
			e.Status, e.Answer = f.Abort.Status, "fault of "+name+": "+strings.TrimPrefix(f.Abort.with(), " with ")
			if f.Abort.Reset {
				e.Answer = "fault of " + name + ": the connection is reset"
			}
		}
	}
}

// Undecided names the external authorizers that decide about the request, whom nobody
// asks for an explanation; "" without any.
func (e *Explanation) Undecided() string {
	switch len(e.Authorizers) {
	case 0:
		return ""
	case 1:
		return "external authorizer " + e.Authorizers[0] + ", which rule " + e.Rule + " asks, decides, and is not asked here"
	}
	return "external authorizers " + strings.Join(e.Authorizers, ", ") + ", which rule " + e.Rule + " asks, decide, and are not asked here"
}

// name is what its author calls the authorizer, else its service.
func (a *ExternalAuth) name() string { return cmp.Or(a.Spec.GetName(), a.Backend.Service) }

// Fails reports whether the rule's own answer is an error.
func (e *Explanation) Fails() bool {
	return e.Answer != "" && (e.Status >= 400 || e.Status == 0)
}

func (a *FaultAbort) verb() string {
	if a.Reset {
		return "resets"
	}
	return "ends"
}

// with is the status, " with 503".
func (a *FaultAbort) with() string {
	switch {
	case a.Reset:
		return ""
	case a.Status == 0:
		return fmt.Sprintf(" with gRPC status %d", a.GRPC)
	}
	return fmt.Sprintf(" with %d", a.Status)
}

func (s share) whole() bool { return s.numerator == s.denominator }

// String is the share in percent, or "all requests".
func (s share) String() string {
	if s.whole() {
		return "all requests"
	}
	return fmt.Sprintf("%.4g %% of requests", 100*float64(s.numerator)/float64(s.denominator))
}
