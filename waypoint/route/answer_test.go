package route_test

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
)

// A rule that answers by itself is told from one that sends requests on.
func TestExplanationsTellWhatARuleAnswersItself(t *testing.T) {
	filter := func(kind any) []*api.Filter {
		switch k := kind.(type) {
		case *api.Redirect:
			return []*api.Filter{{Kind: &api.Filter_Redirect{Redirect: k}}}
		case *api.DirectResponse:
			return []*api.Filter{{Kind: &api.Filter_DirectResponse{DirectResponse: k}}}
		case *api.Cors:
			return []*api.Filter{{Kind: &api.Filter_Cors{Cors: k}}}
		case *api.Fault:
			k.Ref = &api.RouteRef{Kind: "FaultPolicy", Namespace: "shop", Name: "f"}
			return []*api.Filter{{Kind: &api.Filter_Fault{Fault: k}}}
		}
		return nil
	}
	onlyTests := []*api.FieldMatch{{Name: "x-test", Kind: &api.FieldMatch_Present{Present: true}}}
	for _, c := range []struct {
		name    string
		kind    any
		method  string
		headers []string
		answer  string
		status  int
		fails   bool
		filters []string
		faults  []string
	}{
		{name: "backend"},
		{name: "redirect", kind: &api.Redirect{Hostname: "example.org", Status: 301}, answer: "redirect 301 to http://example.org/x?q=1", status: 301, filters: []string{"redirect"}},
		{name: "direct", kind: &api.DirectResponse{Status: 204}, answer: "direct response 204", status: 204, filters: []string{"direct response"}},
		{name: "direct error", kind: &api.DirectResponse{Status: 418}, answer: "direct response 418", status: 418, fails: true, filters: []string{"direct response"}},
		{name: "abort", kind: &api.Fault{Abort: &api.FaultAbort{Status: 503}}, answer: "fault of FaultPolicy/shop/f: 503", status: 503, fails: true,
			filters: []string{"fault"}, faults: []string{"FaultPolicy/shop/f ends all requests with 503"}},
		{name: "abort by gRPC status", kind: &api.Fault{Abort: &api.FaultAbort{HasGrpcStatus: true, GrpcStatus: 14}}, answer: "fault of FaultPolicy/shop/f: gRPC status 14", fails: true,
			filters: []string{"fault"}, faults: []string{"FaultPolicy/shop/f ends all requests with gRPC status 14"}},
		{name: "reset", kind: &api.Fault{Abort: &api.FaultAbort{Reset_: true}}, answer: "fault of FaultPolicy/shop/f: the connection is reset", fails: true,
			filters: []string{"fault"}, faults: []string{"FaultPolicy/shop/f resets all requests"}},
		{name: "some faults", kind: &api.Fault{Abort: &api.FaultAbort{Status: 500, Numerator: 1, Denominator: 8}, Delay: &api.FaultDelay{Duration: durationpb.New(2 * time.Second), Numerator: 1, Denominator: 10}},
			filters: []string{"fault"}, faults: []string{"FaultPolicy/shop/f delays 10 % of requests by 2s", "FaultPolicy/shop/f ends 12.5 % of requests with 500"}},
		{name: "faults of others", kind: &api.Fault{Abort: &api.FaultAbort{Status: 500}, Headers: onlyTests}, filters: []string{"fault"}},
		{name: "no faults", kind: &api.Fault{Abort: &api.FaultAbort{Status: 500, Numerator: 0, Denominator: 100}}, filters: []string{"fault"}},
		{name: "preflight", kind: &api.Cors{AllowOrigins: []string{"https://a.example"}}, method: "OPTIONS", headers: []string{"origin: https://a.example", "access-control-request-method: PUT"},
			answer: "CORS preflight, allowed: 200", status: 200, filters: []string{"CORS"}},
		{name: "preflight of others", kind: &api.Cors{AllowOrigins: []string{"https://a.example"}}, method: "OPTIONS", headers: []string{"origin: https://b.example", "access-control-request-method: PUT"},
			answer: "CORS preflight, not allowed: 403", status: 403, fails: true, filters: []string{"CORS"}},
	} {
		p := port(t, rule{matches: []*api.Match{match("prefix /x")}, filters: filter(c.kind), backends: to("a")})
		r := get("/x?q=1", c.headers...)
		if c.method != "" {
			r.Method = c.method
		}
		e := p.Explain("", r)
		if e.Answer != c.answer || e.Status != c.status || e.Fails() != c.fails || !reflect.DeepEqual(e.Filters, c.filters) || !reflect.DeepEqual(e.Faults, c.faults) {
			t.Errorf("%s: %+v", c.name, e)
		}
		if e := p.Explain("", get("/other")); e.Answer != "" || e.Filters != nil {
			t.Errorf("%s: a request that no rule takes: %+v", c.name, e)
		}
	}
}

// A rule that has an external authorizer asked is told from one that sends requests on.
func TestExplanationsNameExternalAuthorizers(t *testing.T) {
	auth := func(name, fault string) []*api.Filter {
		return []*api.Filter{{Kind: &api.Filter_ExternalAuth{ExternalAuth: &api.ExternalAuth{Name: name, Grpc: true, Backend: &api.Backend{Service: "shop/authz", Port: 1, Fault: fault}}}}}
	}
	behind := to("a")
	behind[0].Filters = auth("", "")
	for _, c := range []struct {
		name      string
		filters   []*api.Filter
		backends  []*api.Backend
		undecided string
		answer    string
		fails     bool
	}{
		{name: "none", backends: to("a")},
		{name: "of the rule", filters: auth("gate", ""), backends: to("a"), undecided: "external authorizer gate, which rule HTTPRoute/shop/test/r00 asks, decides, and is not asked here"},
		{name: "of a backend", backends: behind, undecided: "external authorizer shop/authz, which rule HTTPRoute/shop/test/r00 asks, decides, and is not asked here"},
		{name: "of both", filters: auth("gate", ""), backends: behind, undecided: "external authorizers gate, shop/authz, which rule HTTPRoute/shop/test/r00 asks, decide, and are not asked here"},
		{name: "that cannot be asked", filters: auth("gate", "no such service"), backends: to("a"), answer: "external authorizer gate cannot be asked: no such service", fails: true},
	} {
		e := port(t, rule{matches: []*api.Match{match("prefix /x")}, filters: c.filters, backends: c.backends}).Explain("", get("/x"))
		if e.Undecided() != c.undecided || e.Answer != c.answer || e.Fails() != c.fails {
			t.Errorf("%s: %q, %+v", c.name, e.Undecided(), e)
		}
	}
}
