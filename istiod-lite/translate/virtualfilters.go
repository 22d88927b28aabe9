package translate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// istioRetryOn is what Istio tries again where nobody says what.
const istioRetryOn = "connect-failure,refused-stream,unavailable,cancelled"

var retryWords = []string{"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream",
	"retriable-status-codes", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}

func virtualRetry(x *networking.HTTPRetry) *apiwaypoint.Retry {
	out := &apiwaypoint.Retry{Attempts: uint32(max(x.GetAttempts(), 0)), Backoff: x.GetBackoff(), OtherLocalities: x.GetRetryRemoteLocalities().GetValue()}
	if d := x.GetPerTryTimeout(); d != nil && d.AsDuration() > 0 {
		out.PerTryTimeout = d
	}
	if ignore := x.GetRetryIgnorePreviousHosts(); ignore != nil {
		out.SameEndpoint = !ignore.GetValue()
	}
	if out.Attempts == 0 {
		return out
	}
	for word := range strings.SplitSeq(cmp.Or(strings.ReplaceAll(x.GetRetryOn(), " ", ""), istioRetryOn), ",") {
		if code, err := strconv.ParseUint(word, 10, 16); err == nil {
			out.Codes = append(out.Codes, uint32(code))
			word = "retriable-status-codes"
		}
		if slices.Contains(retryWords, word) && !slices.Contains(out.Conditions, word) {
			out.Conditions = append(out.Conditions, word)
		}
	}
	return out
}

// share is how many of how many; of is 0 for none at all.
type share struct{ hits, of uint32 }

// percentage counts in millionths, as fine as Istio's API has them.
func percentage(p *networking.Percent) share {
	hits := uint32(math.Round(min(max(p.GetValue(), 0), 100) * 10_000))
	if hits == 0 {
		return share{}
	}
	return share{hits, 1_000_000}
}

func virtualFault(f *networking.HTTPFaultInjection, ref *apiwaypoint.RouteRef) (*apiwaypoint.Fault, string) {
	out := &apiwaypoint.Fault{Ref: ref}
	if d := f.GetDelay(); d != nil {
		part := percentage(d.GetPercentage())
		if d.GetPercentage() == nil && d.GetPercent() > 0 { //nolint:staticcheck // deprecated, and honoured by Istio
			part = percentage(&networking.Percent{Value: float64(d.GetPercent())}) //nolint:staticcheck // see above
		}
		switch {
		case d.GetFixedDelay() == nil:
			return nil, "fault.delay has no fixedDelay"
		case part.of > 0:
			out.Delay = &apiwaypoint.FaultDelay{Duration: d.GetFixedDelay(), Numerator: part.hits, Denominator: part.of}
		}
	}
	if a := f.GetAbort(); a != nil {
		part := percentage(a.GetPercentage())
		abort := &apiwaypoint.FaultAbort{Numerator: part.hits, Denominator: part.of}
		switch kind := a.GetErrorType().(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			if abort.Status = uint32(max(kind.HttpStatus, 0)); abort.Status < 200 || abort.Status > 599 {
				return nil, fmt.Sprintf("fault.abort.httpStatus %d is none", kind.HttpStatus)
			}
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			status, ok := source.GRPCStatus(kind.GrpcStatus)
			if !ok {
				return nil, fmt.Sprintf("fault.abort.grpcStatus %q is none", kind.GrpcStatus)
			}
			abort.GrpcStatus, abort.HasGrpcStatus = status, true
		default:
			return nil, "fault.abort says not how requests end"
		}
		if part.of > 0 {
			out.Abort = abort
		}
	}
	if out.Delay == nil && out.Abort == nil {
		return nil, ""
	}
	return out, ""
}

type virtualMirror struct {
	to    *networking.Destination
	share share
}

func virtualMirrors(r *networking.HTTPRoute) []virtualMirror {
	var out []virtualMirror
	if m := r.GetMirror(); m != nil {
		part := share{1, 1}
		switch {
		case r.GetMirrorPercentage() != nil:
			part = percentage(r.GetMirrorPercentage())
		case r.GetMirrorPercent() != nil: //nolint:staticcheck // deprecated, and honoured by Istio
			part = percentage(&networking.Percent{Value: float64(r.GetMirrorPercent().GetValue())}) //nolint:staticcheck // see above
		}
		out = append(out, virtualMirror{m, part})
	}
	for _, m := range r.GetMirrors() {
		part := share{1, 1}
		if m.GetPercentage() != nil {
			part = percentage(m.GetPercentage())
		}
		out = append(out, virtualMirror{m.GetDestination(), part})
	}
	return out
}

func virtualCors(p *networking.CorsPolicy) (*apiwaypoint.Cors, string) {
	out := &apiwaypoint.Cors{AllowOrigins: slices.Clone(p.GetAllowOrigin()), AllowMethods: p.GetAllowMethods(), AllowHeaders: lower(p.GetAllowHeaders()), //nolint:staticcheck // allowOrigin is deprecated, and honoured by Istio
		ExposeHeaders: lower(p.GetExposeHeaders()), MaxAge: p.GetMaxAge(), AllowCredentials: p.GetAllowCredentials().GetValue(),
		ForwardUnmatched: p.GetUnmatchedPreflights() != networking.CorsPolicy_IGNORE}
	for _, o := range p.GetAllowOrigins() {
		switch kind := o.GetMatchType().(type) {
		case *networking.StringMatch_Exact:
			out.AllowOrigins = append(out.AllowOrigins, kind.Exact)
		case *networking.StringMatch_Prefix:
			out.AllowOriginRegexes = append(out.AllowOriginRegexes, regexp.QuoteMeta(kind.Prefix)+".*")
		case *networking.StringMatch_Regex:
			if bad := badRegex(kind.Regex); bad != "" {
				return nil, bad
			}
			out.AllowOriginRegexes = append(out.AllowOriginRegexes, kind.Regex)
		default:
			return nil, "corsPolicy.allowOrigins has an origin without exact, prefix or regex"
		}
	}
	return out, ""
}

// virtualHeaders returns the changes of a request, of its host and of the response.
func virtualHeaders(h *networking.Headers) []*apiwaypoint.Filter {
	var out []*apiwaypoint.Filter
	if o := h.GetRequest(); o != nil {
		change, host := headerOperations(o)
		if change != nil {
			out = append(out, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_RequestHeaders{RequestHeaders: change}})
		}
		if host != "" {
			out = append(out, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_Rewrite{Rewrite: &apiwaypoint.Rewrite{Hostname: host}}})
		}
	}
	if o := h.GetResponse(); o != nil {
		if change, _ := headerOperations(o); change != nil {
			out = append(out, &apiwaypoint.Filter{Kind: &apiwaypoint.Filter_ResponseHeaders{ResponseHeaders: change}})
		}
	}
	return out
}

func headerOperations(o *networking.Headers_HeaderOperations) (change *apiwaypoint.HeaderChange, host string) {
	change = &apiwaypoint.HeaderChange{Remove: lower(o.GetRemove())}
	fields := func(m map[string]string) (out []*apiwaypoint.HeaderField) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			switch key := strings.ToLower(name); key {
			case "host", ":authority":
				host = strings.ToLower(m[name])
			default:
				out = append(out, &apiwaypoint.HeaderField{Name: key, Value: m[name]})
			}
		}
		return out
	}
	change.Set, change.Add = fields(o.GetSet()), fields(o.GetAdd())
	if empties(change) {
		change = nil
	}
	return change, host
}
