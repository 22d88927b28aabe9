package request_test

import (
	"fmt"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
)

// claimed is a token with claims as JSON has them.
type claimed struct {
	token
	all map[string]any
}

func (c claimed) Claims() map[string]any { return c.all }

func expression(action api.Action, values, notValues []string) *api.Policy {
	return &api.Policy{Name: "cel", Action: action, Rules: []*api.PolicyRule{{
		When: []*api.Condition{{Key: "policy.tulle.dev/cel", Values: values, NotValues: notValues}},
	}}}
}

func TestExpressionsDecide(t *testing.T) {
	a := shopper(t)
	a.Request.Token = claimed{token{"iss": text("idp"), "sub": text("ann")}, map[string]any{"iss": "idp", "groups": []any{"dev"}}}
	a.Request.Fields = fields{{"x-a", "1"}, {"x-a", "2"}}
	for expression, want := range map[string]bool{
		`source.namespace == "shop"`:                                                 true,
		`request.method == "GET" && request.path.startsWith("/catalog/")`:            true,
		`request.headers["x-a"] == "1,2" && request.headers[":method"] == "GET"`:     true,
		`request.headers.exists(n, n == "x-a") && "x-b" in request.headers == false`: true,
		`auth.principal == "idp/ann" && "dev" in auth.claims.groups`:                 true,
		`!has(request.id) && has(auth.claims) && !has(auth.presenter)`:               true,
		`destination.port == 80`:                                                     false,
		`request.path == "/"`:                                                        false,
	} {
		set := request.NewPolicies(compile(t, expr(api.Action_ALLOW, expression)))
		if _, _, err := set.Authorize(a, request.Consent{}); (err == nil) != want {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

func expr(action api.Action, values ...string) *api.Policy { return expression(action, values, nil) }

// TestDoubtAboutAnExpressionRestricts has expressions that cannot be compiled, that ask
// for what is absent, and that are about bytes.
func TestDoubtAboutAnExpressionRestricts(t *testing.T) {
	a := shopper(t)
	bytes := *a
	bytes.Request = nil
	for _, doubt := range []string{`request.pth == "x"`, `request.headers["x-none"] == "1"`, `auth.claims.level > 3`, `request.time > `} {
		for _, c := range []struct {
			policy *api.Policy
			denies bool
		}{
			{expression(api.Action_ALLOW, []string{doubt}, nil), true},
			{expression(api.Action_ALLOW, nil, []string{doubt}), true},
			{expression(api.Action_DENY, []string{doubt}, nil), true},
			{expression(api.Action_DENY, nil, []string{doubt}), true},
			// Another one that holds settles it.
			{expression(api.Action_ALLOW, []string{doubt, "true"}, nil), false},
			{expression(api.Action_DENY, nil, []string{doubt, "true"}), false},
		} {
			set := request.NewPolicies(compile(t, c.policy))
			if _, _, err := set.Authorize(a, request.Consent{}); (err != nil) != c.denies {
				t.Errorf("%v: %v", c.policy, err)
			}
		}
	}
	for _, action := range []api.Action{api.Action_ALLOW, api.Action_DENY} {
		set := request.NewPolicies(compile(t, expr(action, `request.method == "GET"`)))
		if _, _, err := set.Authorize(&bytes, request.Consent{}); err == nil {
			t.Errorf("%v passes bytes", action)
		}
	}
	// What needs no request is decided for bytes, too.
	if _, _, err := request.NewPolicies(compile(t, expr(api.Action_ALLOW, `source.namespace == "shop"`))).Authorize(&bytes, request.Consent{}); err != nil {
		t.Error(err)
	}
}

func TestBothFormsOfAPathAreJudgedByExpressions(t *testing.T) {
	a := shopper(t)
	a.Request.Path, a.Request.Folded = "/catalog//admin", "/catalog/admin"
	for policy, denied := range map[*api.Policy]bool{
		expr(api.Action_DENY, `request.path == "/catalog/admin"`):   true,
		expr(api.Action_ALLOW, `request.path == "/catalog//admin"`): true,
		expr(api.Action_ALLOW, `request.path.endsWith("/admin")`):   false,
	} {
		if _, _, err := request.NewPolicies(compile(t, policy)).Authorize(a, request.Consent{}); (err != nil) != denied {
			t.Errorf("%v: %v", policy, err)
		}
	}
}

func TestAnAuthorizerIsAskedBeforeTheTokenIsKnown(t *testing.T) {
	a := shopper(t)
	set := request.NewPolicies(compile(t, expr(api.Action_CUSTOM, `has(auth.principal) && auth.principal == "idp/ann"`)))
	consent := set.Consult(a)
	if len(consent.Asks()) != 1 {
		t.Errorf("%+v", consent.Asks())
	}
	set = request.NewPolicies(compile(t, expr(api.Action_CUSTOM, `request.method == "POST"`)))
	consent = set.Consult(a)
	if len(consent.Asks()) != 0 {
		t.Errorf("%+v", consent.Asks())
	}
}

func TestADenialNamesTheExpression(t *testing.T) {
	a := shopper(t)
	_, _, err := request.NewPolicies(compile(t, expr(api.Action_ALLOW, `request.method == "PUT"`))).Authorize(a, request.Consent{})
	if err == nil || !strings.Contains(err.Error(), `no expression holds of "request.method == \"PUT\""`) {
		t.Errorf("%v", err)
	}
	p := compile(t, expr(api.Action_DENY, `request.mthod == "PUT"`))
	if len(p.Warnings()) != 1 || !strings.Contains(p.Warnings()[0], "undefined field 'mthod'") {
		t.Errorf("%v", p.Warnings())
	}
}

func BenchmarkExpression(b *testing.B) {
	for name, p := range map[string]*api.Policy{
		"cel": expr(api.Action_ALLOW, `request.method == "GET" && request.path.startsWith("/catalog/") && source.namespace == "shop"`),
		"lists": {Name: "lists", Rules: []*api.PolicyRule{{
			From: []*api.Source{{Namespaces: []string{"shop"}}}, To: []*api.Operation{{Methods: []string{"GET"}, Paths: []string{"/catalog/*"}}},
		}}},
	} {
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			set, a := request.NewPolicies(compile(b, p)), shopper(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := set.Authorize(a, request.Consent{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
