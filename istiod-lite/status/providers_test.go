package status_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

// TestACustomPolicyIsToldOfItsProvider uses the objects of translate's golden pair.
func TestACustomPolicyIsToldOfItsProvider(t *testing.T) {
	const path = "../translate/testdata/waypoint-providers.in.yaml"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objects, problems := file.Decode(path, content, source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	for name, want := range map[string]string{
		"a-grpc":     "",
		"b-http":     "",
		"c-gone":     `The provider "gone" cannot be asked: Service auth/gone does not exist`,
		"d-port":     "has no port 9001",
		"e-misspelt": `unknown field "failopen"`,
		"f-tracing":  "is not one of external authorization",
		"g-unknown":  `No provider "nobody" of external authorization is known: requests that it would be asked about are refused.`,
		"h-cel":      "",
	} {
		policy := objects.AuthorizationPolicies[source.Name{Namespace: "shop", Name: name}]
		wanted, ok := status.Decider{}.Decide(objects, policy)
		if !ok || len(wanted.Conditions) != 1 {
			t.Fatalf("%s: %+v", name, wanted)
		}
		c := wanted.Conditions[0]
		if reason := map[bool]string{true: "Accepted", false: "PartiallyInvalid"}[want == ""]; c.Type != status.WaypointAccepted || c.Reason != reason || !strings.Contains(c.Message, want) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestAnExpressionThatIsWrongIsNamed has a file, whose author is told at once.
func TestAnExpressionThatIsWrongIsNamed(t *testing.T) {
	const policy = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cel, namespace: shop}
spec: {rules: [{when: [{key: policy.tulle.dev/cel, values: ['request.method == "GET"', 'request.mthod == "GET"']}]}]}
`
	_, problems := file.Decode("cel.yaml", []byte(policy), source.Checker{RootNamespace: "istio-system"})
	if len(problems) != 1 || problems[0].Field != "spec.rules[0].when[0].values[1]" || !strings.Contains(problems[0].Message, "undefined field 'mthod'") {
		t.Errorf("%+v", problems)
	}
}
