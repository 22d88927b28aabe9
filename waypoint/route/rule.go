package route

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Rule is what becomes of a request. Nobody changes it.
type Rule struct {
	Ref Ref
	// Name is Ref's text.
	Name string
	// Filters in the order in which they apply.
	Filters Filters
	// Backends share the requests; see Pick.
	Backends []Backend
	// RequestTimeout is of the whole exchange, BackendTimeout of one attempt; 0 is none.
	RequestTimeout, BackendTimeout time.Duration
	// Retry is nil where the default applies.
	Retry *upstream.RetryPolicy
	// Affinity is nil without.
	Affinity *upstream.Affinity
	// RateLimits names the resources that apply.
	RateLimits []string
	// Fault is why all requests get 500; "" when it can be carried out.
	Fault string

	weight uint64
	// needsPrefix tells that a filter replaces the prefix that matched.
	needsPrefix bool
}

// Ref names a rule of a route.
type Ref struct {
	Kind, Namespace, Name string
	// Rule is its name, else its index.
	Rule string
}

// String returns kind/namespace/name/rule.
func (r Ref) String() string { return r.Kind + "/" + r.Namespace + "/" + r.Name + "/" + r.Rule }

// Backend is where a share of a rule's requests goes.
type Backend struct {
	// Service is "namespace/hostname".
	Service string
	Port    uint16
	Weight  uint32
	// Filters apply after those of the rule to requests, before them to responses.
	Filters Filters
	// Subset of the service's endpoints; "" is all of them.
	Subset string
	// Fault is why its share gets 500.
	Fault string

	needsPrefix bool
}

func compileRule(r *api.Rule) Rule {
	out := Rule{
		Ref: Ref{
			Kind:      r.GetRef().GetKind(),
			Namespace: r.GetRef().GetNamespace(),
			Name:      r.GetRef().GetName(),
			Rule:      r.GetRef().GetRule(),
		},
		Backends:   make([]Backend, len(r.GetBackends())),
		RateLimits: r.GetRateLimits(),
		Fault:      r.GetFault(),
	}
	out.Name = out.Ref.String()
	fault := func(why string) {
		if out.Fault == "" {
			out.Fault = why
		}
	}
	if unknownIn(r, r.GetRef(), r.GetTimeouts(), r.GetRetry(), r.GetSessionAffinity()) {
		fault("something that this waypoint does not know")
	}
	var err error
	if out.Filters, err = compileFilters(r.GetFilters()); err != nil {
		fault(err.Error())
	}
	out.needsPrefix = out.Filters.needPrefix()
	for i, b := range r.GetBackends() {
		out.Backends[i] = compileBackend(b)
		out.weight += uint64(out.Backends[i].Weight)
		out.needsPrefix = out.needsPrefix || out.Backends[i].Weight > 0 && out.Backends[i].needsPrefix
	}
	if out.weight == 0 && out.Filters.Redirect() == nil && out.Filters.Direct() == nil {
		fault("no backend with a weight")
	}
	if out.RequestTimeout, err = duration(r.GetTimeouts().GetRequest()); err != nil {
		fault(fmt.Sprintf("timeout of requests: %v", err))
	}
	if out.BackendTimeout, err = duration(r.GetTimeouts().GetBackend()); err != nil {
		fault(fmt.Sprintf("timeout of backends: %v", err))
	}
	if out.Retry, err = CompileRetry(r.GetRetry()); err != nil {
		fault(fmt.Sprintf("retry: %v", err))
	}
	if out.Affinity, err = CompileAffinity(r.GetSessionAffinity()); err != nil {
		fault(fmt.Sprintf("session affinity: %v", err))
	}
	return out
}

func compileBackend(b *api.Backend) Backend {
	out := Backend{Service: b.GetService(), Port: uint16(b.GetPort()), Weight: b.GetWeight(), Subset: b.GetSubset(), Fault: b.GetFault()}
	fault := func(why string) {
		if out.Fault == "" {
			out.Fault = why
		}
	}
	if unknownIn(b) {
		fault("something that this waypoint does not know")
	}
	var err error
	if out.Filters, err = compileFilters(b.GetFilters()); err != nil {
		fault(err.Error())
	}
	out.needsPrefix = out.Filters.needPrefix()
	if namespace, hostname, _ := strings.Cut(out.Service, "/"); namespace == "" || hostname == "" {
		fault("no service")
	}
	if b.GetPort() == 0 || b.GetPort() > 65535 {
		fault(fmt.Sprintf("port %d is none", b.GetPort()))
	}
	return out
}

// CompileRetry returns the policy that r describes, nil when it is nil.
func CompileRetry(r *api.Retry) (*upstream.RetryPolicy, error) {
	if r == nil {
		return nil, nil
	}
	out := upstream.DefaultRetry()
	out.Attempts = int(min(r.GetAttempts(), maxRetries))
	// Its author vouches that the requests may come twice.
	out.AnyMethod = true
	out.SameEndpoint, out.OtherLocalities = r.GetSameEndpoint(), r.GetOtherLocalities()
	for _, c := range r.GetCodes() {
		if c < 400 || c > 599 {
			return nil, fmt.Errorf("status %d is not retried", c)
		}
		out.Codes.Add(int(c))
	}
	if len(r.GetConditions()) == 0 {
		out.On |= upstream.OnReset
	} else {
		out.On, out.GRPC = 0, 0
	}
	for _, word := range r.GetConditions() {
		if !out.Add(word) {
			return nil, fmt.Errorf("condition %q is unknown", word)
		}
	}
	var err error
	if out.Backoff.Floor, err = duration(r.GetBackoff()); err != nil {
		return nil, fmt.Errorf("backoff: %w", err)
	}
	if out.PerTry, err = duration(r.GetPerTryTimeout()); err != nil {
		return nil, fmt.Errorf("timeout of a try: %w", err)
	}
	return out, nil
}

// CompileAffinity returns what binds clients as a describes, nil when it is nil.
func CompileAffinity(a *api.SessionAffinity) (*upstream.Affinity, error) {
	if a == nil {
		return nil, nil
	}
	out := &upstream.Affinity{Cookie: a.GetCookie(), Header: strings.ToLower(a.GetHeader()), Permanent: a.GetPermanent()}
	if name := out.Cookie + out.Header; !message.ValidName(strings.ToLower(name)) {
		return nil, fmt.Errorf("%q is no name", name)
	}
	var err error
	if out.Absolute, err = duration(a.GetAbsoluteTimeout()); err != nil {
		return nil, err
	}
	out.Idle, err = duration(a.GetIdleTimeout())
	return out, err
}

// duration returns d, 0 when it is absent.
func duration(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, err
	}
	if v := d.AsDuration(); v >= 0 {
		return v, nil
	}
	return 0, fmt.Errorf("%v is negative", d.AsDuration())
}

// Pick chooses the backend for u, a number spread evenly over all of 64 bits: each
// gets its weight's share of them. It is nil when no backend has a weight.
func (r *Rule) Pick(u uint64) *Backend {
	if r.weight == 0 {
		return nil
	}
	at, _ := bits.Mul64(u, r.weight)
	for i := range r.Backends {
		w := uint64(r.Backends[i].Weight)
		if at < w {
			return &r.Backends[i]
		}
		at -= w
	}
	return nil
}

// Apply changes a request as the rule and, if it is not nil, the backend say; without
// a rule it does nothing. Mirrors, CORS, redirects and external authorization are the
// caller's.
func (d Decision) Apply(b *Backend, r *message.Request) {
	if d.Rule != nil {
		d.Rule.Filters.Request(d, r)
	}
	if b != nil {
		b.Filters.Request(d, r)
	}
}

// ApplyResponse changes a response as the backend, if it is not nil, and the rule say;
// without a rule it does nothing.
func (d Decision) ApplyResponse(b *Backend, r *message.Response) {
	if b != nil {
		b.Filters.Response(r)
	}
	if d.Rule != nil {
		d.Rule.Filters.Response(r)
	}
}
