package cel_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/cel"
)

// vars are the values of a test.
type vars map[string]any

func (v vars) Attribute(name string) (any, bool) {
	value, ok := v[name]
	return value, ok
}

// fields is a header.
type fields [][2]string

func (f fields) Lookup(name string) (string, bool) {
	joined, found := "", false
	for _, line := range f {
		switch {
		case line[0] != name:
		case found:
			joined += "," + line[1]
		default:
			joined, found = line[1], true
		}
	}
	return joined, found
}

func (f fields) Names(yield func(string) bool) {
	for _, line := range f {
		if !yield(line[0]) {
			return
		}
	}
}

var request = vars{
	"request.method": "GET", "request.path": "/shop/cart", "request.host": "shop.example:8080", "request.scheme": "http",
	"request.headers": fields{{"x-team", "red"}, {"accept", "a"}, {"accept", "b"}},
	"request.time":    time.Date(2026, 3, 7, 22, 30, 0, 0, time.UTC), // a Saturday
	"source.ip":       "10.1.2.3", "source.namespace": "shop", "source.service_account": "web",
	"source.principal": "cluster.local/ns/shop/sa/web",
	"destination.port": int64(8080),
	"auth.audiences":   []string{"shop", "bank"},
	"auth.claims":      map[string]any{"groups": []any{"dev", "ops"}, "level": 7.0, "org": map[string]any{"unit": "a"}},
	"connection.mtls":  true,
}

func TestConditionsAreWhatTheySay(t *testing.T) {
	for expression, want := range map[string]bool{
		`request.method == "GET"`: true,
		`request.path.startsWith("/shop/") && source.namespace == "shop"`:       true,
		`request.headers["x-team"] in ["red", "blue"]`:                          true,
		`request.headers["X-Team"] == "red"`:                                    true,
		`"x-nobody" in request.headers`:                                         false,
		`has(request.headers.accept) && request.headers.accept == "a,b"`:        true,
		`size(request.headers) == 2`:                                            true,
		`request.headers.exists(name, name.startsWith("x-"))`:                   true,
		`request.headers == {"x-team": "red", "accept": "a,b"}`:                 true,
		`request.time.getDayOfWeek() in [0, 6]`:                                 true,
		`request.time.getHours() >= 22 || request.time.getHours() < 6`:          true,
		`request.host.split(":")[0] == "shop.example"`:                          true,
		`cidr("10.0.0.0/8").containsIP(source.ip)`:                              true,
		`"ops" in auth.claims.groups && auth.claims.level >= 7`:                 true,
		`auth.claims.org.unit == "b"`:                                           false,
		`has(auth.claims.nobody)`:                                               false,
		`"bank" in auth.audiences`:                                              true,
		`destination.port == 8080`:                                              true,
		`has(request.id)`:                                                       false,
		`!has(request.id) || request.id == "1"`:                                 true,
		`request.path.matches("^/shop/[a-z]+$")`:                                true,
		`connection.mtls && !(source.principal.endsWith("/sa/db"))`:             true,
		`source.principal == "cluster.local/ns/shop/sa/web" ? true : 1 / 0 > 1`: true,
	} {
		p, err := cel.Conditions.Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got, err := p.Holds(request); err != nil || got != want {
			t.Errorf("%s = %v, %v", expression, got, err)
		}
	}
}

func TestWhatCannotBeRightIsRefusedWhenItIsCompiled(t *testing.T) {
	for expression, want := range map[string]string{
		"":                               "is empty",
		"request.pth == 'x'":             "undefined field 'pth'",
		"respons.code == 1":              "undeclared reference to 'respons'",
		"response.code == 200":           "undeclared reference to 'response'", // not before there is one
		"request.path":                   "type string",
		"request.path == 7":              "no matching overload",
		"request.path ==":                "Syntax error",
		`request.path.matches("(")`:      "regex",
		"request{path: '/x'}.path == ''": "cannot be made",
		strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200): "recursion",
		strings.Repeat("true && ", 1000) + "true":                    "longer than 4096 bytes",
	} {
		p, err := cel.Conditions.Compile(expression)
		if err == nil && want == "cannot be made" {
			_, err = p.Holds(request)
		}
		switch {
		case err == nil:
			t.Errorf("%q compiles", expression)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v", expression, err)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%q: more than a line: %q", expression, err)
		}
	}
}

func TestWhatIsAbsentIsAnError(t *testing.T) {
	p, err := cel.Conditions.Compile(`request.id == "" || request.headers["x"] == ""`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Holds(request); err == nil {
		t.Error("it holds or not")
	}
	p, err = cel.Conditions.Compile(`request.id == ""`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Holds(request)
	var absent *cel.AbsentError
	if !errors.As(err, &absent) || absent.Name != "request.id" {
		t.Errorf("%v", err)
	}
}

// TestNoRequestMakesAnExpressionCostTooMuch has a client send what is dear.
func TestNoRequestMakesAnExpressionCostTooMuch(t *testing.T) {
	p, err := cel.Conditions.Compile(`request.headers.all(a, request.headers.all(b, request.headers.all(c, a + b != c)))`)
	if err != nil {
		t.Fatal(err)
	}
	var many fields
	for i := range 1000 {
		many = append(many, [2]string{"x-" + strings.Repeat("y", i), "v"})
	}
	start := time.Now()
	if _, err := p.Holds(vars{"request.headers": many}); err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestReportsAreText(t *testing.T) {
	v := vars{"response.code": int64(503), "request.duration": 1500 * time.Millisecond, "response.flags": "UF", "request.headers": fields{{"x", "y"}}}
	for expression, want := range map[string]string{
		`response.code`:                               "503",
		`response.code >= 500 ? "bad" : "good"`:       "bad",
		`request.duration`:                            "1.5s",
		`response.flags + "/" + request.headers["x"]`: "UF/y",
		`has(response.grpc_status)`:                   "false",
		`string(response.code / 100) + "xx"`:          "5xx",
		`request.headers.map(n, n)[0]`:                "x",
	} {
		p, err := cel.Reports.CompileText(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got, err := p.Text(v); err != nil || got != want {
			t.Errorf("%s = %q, %v", expression, got, err)
		}
	}
	if _, err := cel.Reports.CompileText("request.headers"); err == nil {
		t.Error("a map is text")
	}
	if p, err := cel.Reports.Compile("response.code >= 400 && !has(response.grpc_status)"); err != nil {
		t.Error(err)
	} else if got, err := p.Holds(v); err != nil || !got {
		t.Errorf("%v, %v", got, err)
	}
}

func TestVocabulariesAreListed(t *testing.T) {
	names := map[string]string{}
	for _, a := range cel.Conditions.Attributes() {
		names[a.Name] = a.Type
	}
	if names["request.headers"] != "map(string, string)" || names["request.time"] != "google.protobuf.Timestamp" || names["response.code"] != "" {
		t.Errorf("%v", names)
	}
	if all := cel.Reports.Attributes(); len(all) <= len(names) {
		t.Errorf("%d words of reports", len(all))
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`request.path == "/"`, `[1,2].map(x, x*x)`, `request.headers["a"].matches("a+")`, `"\u0000"`, `a.b.c`, `{1:2}[1]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := cel.Conditions.Compile(s)
		if err == nil {
			_, _ = p.Holds(request)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	for name, expression := range map[string]string{
		"compare": `request.method == "GET"`,
		"typical": `request.path.startsWith("/shop/") && request.headers["x-team"] in ["red", "blue"] && source.namespace == "shop"`,
		"claims":  `"ops" in auth.claims.groups`,
	} {
		b.Run(name, func(b *testing.B) {
			p, err := cel.Conditions.Compile(expression)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := p.Holds(request); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
