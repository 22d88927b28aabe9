package source_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

const served = `{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"p","namespace":"shop"},"spec":%s}`

// restrict reads a policy's spec as an API server sends it.
func restrict(t *testing.T, spec string) (*security.AuthorizationPolicy, []source.Fault) {
	t.Helper()
	ap := &securityv1.AuthorizationPolicy{}
	faults := source.Checker{RootNamespace: "istio-system", Served: true}.Decode(fmt.Appendf(nil, served, spec), ap)
	return &source.RestrictAuthorization(ap, faults).Spec, faults
}

// TestAPolicyThatIsNotUnderstoodIsStricter gives a policy as it is written and
// the understood one that stands for it.
func TestAPolicyThatIsNotUnderstoodIsStricter(t *testing.T) {
	for _, c := range []struct {
		name, written, want string
		fault               string // the field named, empty for none
	}{
		{"understood", `{"selector":{"matchLabels":{"app":"a"}},"rules":[{"from":[{"source":{"namespaces":["x"]}}]}]}`,
			`{"selector":{"matchLabels":{"app":"a"}},"rules":[{"from":[{"source":{"namespaces":["x"]}}]}]}`, ""},
		{"allow loses the rule", `{"rules":[{"from":[{"source":{"namespaces":["x"],"moon":["full"]}}]},{"from":[{"source":{"namespaces":["y"]}}]}]}`,
			`{"rules":[{"from":[{"source":{"namespaces":["y"]}}]}]}`, "spec.rules[0].from[0].source.moon"},
		{"allow without a rule left allows nothing", `{"rules":[{"when":[{"key":"moon.phase","values":["full"]}]}]}`, `{}`, "spec.rules[0].when[0].key"},
		{"deny counts the part as met", `{"action":"DENY","rules":[{"from":[{"source":{"namespaces":["x"],"moon":["full"]}}],"to":[{"operation":{"ports":["80"]}}]}]}`,
			`{"action":"DENY","rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`, "spec.rules[0].from[0].source.moon"},
		{"deny counts the condition as met", `{"action":"DENY","rules":[{"when":[{"key":"source.ip","values":["10.0.0.1"]},{"key":"moon.phase","values":["full"]}]}]}`,
			`{"action":"DENY","rules":[{"when":[{"key":"source.ip","values":["10.0.0.1"]}]}]}`, "spec.rules[0].when[1].key"},
		{"deny of an unknown part of a rule", `{"action":"DENY","rules":[{"unless":[],"to":[{"operation":{"ports":["80"]}}]}]}`, `{"action":"DENY","rules":[{}]}`, "spec.rules[0].unless"},
		{"a principal that nobody can have", `{"action":"DENY","rules":[{"from":[{"source":{"principals":["spiffe://a/ns/b/sa/c"]}}],"to":[{"operation":{"ports":["80"]}}]}]}`,
			`{"action":"DENY","rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`, "spec.rules[0].from[0].source.principals[0]"},
		{"custom keeps its rules", `{"action":"CUSTOM","provider":{"name":"x"},"rules":[{"to":[{"operation":{"paths":["/a"]}}]}]}`,
			`{"action":"CUSTOM","provider":{"name":"x"},"rules":[{"to":[{"operation":{"paths":["/a"]}}]}]}`, ""},
		{"an action of the future", `{"action":"BLESS","selector":{"matchLabels":{"app":"a"}},"rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`,
			`{"action":"DENY","selector":{"matchLabels":{"app":"a"}},"rules":[{}]}`, "spec.action"},
		{"an unknown selection allows nothing anywhere", `{"selector":{"matchExpressions":[{"key":"app","operator":"Exists"}]},"rules":[{}]}`, `{}`, "spec.selector.matchExpressions"},
		{"an unknown selection denies everywhere", `{"action":"DENY","selector":{"matchExpressions":[]},"rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`,
			`{"action":"DENY","rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`, "spec.selector.matchExpressions"},
		{"an unknown target", `{"action":"DENY","targetRefs":[{"group":"example.com","kind":"Planet","name":"x"}],"rules":[{}]}`, `{"action":"DENY","rules":[{}]}`, "spec.targetRefs[0].kind"},
		{"a class bound from outside the root namespace", `{"targetRefs":[{"group":"gateway.networking.k8s.io","kind":"GatewayClass","name":"x"}],"rules":[{}]}`, `{}`, "spec.targetRefs[0].kind"},
		{"a fault beside another", `{"action":"DENY","rules":[{"unless":1},{"from":[{"source":{"principals":["spiffe://x"]}}]}]}`, `{"action":"DENY","rules":[{},{}]}`, "spec.rules[0].unless"},
		{"an unknown part of a deny", `{"action":"DENY","schedule":"nightly","rules":[{"to":[{"operation":{"ports":["80"]}}]}]}`, `{"action":"DENY","rules":[{}]}`, "spec.schedule"},
		{"an unknown part of an allow", `{"schedule":"nightly","rules":[{}]}`, `{}`, "spec.schedule"},
		{"a value of another type", `{"selector":{"matchLabels":{"app":"a"}},"rules":[{"to":[{"operation":{"ports":[80]}}]}]}`,
			`{"action":"DENY","selector":{"matchLabels":{"app":"a"}},"rules":[{}]}`, ""},
		{"nothing of it can be read", `{"selector":[],"rules":7}`, `{"action":"DENY","rules":[{}]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, faults := restrict(t, c.written)
			want := &security.AuthorizationPolicy{}
			if err := protojson.Unmarshal([]byte(c.want), want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s\nfaults %+v", diff, faults)
			}
			if c.fault != "" && (len(faults) == 0 || faults[0].Field != c.fault) {
				t.Errorf("faults = %+v, want one of %s", faults, c.fault)
			}
			if same := cmp.Equal(c.written, c.want); same != (len(faults) == 0) {
				t.Errorf("faults = %+v of a policy that is kept as it is: %v", faults, same)
			}
		})
	}
}

func TestADryRunThatIsNotUnderstoodIsInEarnest(t *testing.T) {
	ap := &securityv1.AuthorizationPolicy{}
	ap.Name, ap.Namespace = "p", "shop"
	ap.Annotations = map[string]string{source.AnnotationDryRun: "perhaps"}
	faults := source.FaultsOf(source.Checker{RootNamespace: "istio-system", Served: true}.Check(ap))
	got := source.RestrictAuthorization(ap, faults)
	if _, ok := got.Annotations[source.AnnotationDryRun]; ok || len(faults) != 1 {
		t.Errorf("annotations = %v, faults = %v", got.Annotations, faults)
	}
	if _, ok := ap.Annotations[source.AnnotationDryRun]; !ok {
		t.Error("the object that was given has changed")
	}
}

func TestAPeerAuthenticationThatIsNotUnderstoodIsStrict(t *testing.T) {
	for _, c := range []struct{ name, written, want string }{
		{"understood", `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"PERMISSIVE"}}`, `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"PERMISSIVE"}}`},
		{"an unknown part", `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"PERMISSIVE","moon":1}}`, `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"STRICT"}}`},
		{"an unknown mode", `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"SOMETIMES"}}`, `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"STRICT"}}`},
		{"an unknown selection", `{"selector":{"matchNames":["a"]},"mtls":{"mode":"DISABLE"}}`, `{"mtls":{"mode":"STRICT"}}`},
		{"ports of nobody", `{"portLevelMtls":{"80":{"mode":"DISABLE"}}}`, `{"mtls":{"mode":"STRICT"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pa := &securityv1.PeerAuthentication{}
			faults := source.Checker{RootNamespace: "istio-system", Served: true}.Decode(fmt.Appendf(nil, `{"metadata":{"name":"p","namespace":"shop"},"spec":%s}`, c.written), pa)
			want := &security.PeerAuthentication{}
			if err := protojson.Unmarshal([]byte(c.want), want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, &source.RestrictPeer(pa, faults).Spec, protocmp.Transform()); diff != "" {
				t.Errorf("spec (-want +got):\n%s\nfaults %+v", diff, faults)
			}
		})
	}
}

// TestTokensAreRefusedByARuleThatIsNotUnderstood holds a field that is not known,
// in the object and in what it selects.
func TestTokensAreRefusedByARuleThatIsNotUnderstood(t *testing.T) {
	const rule = `"jwtRules":[{"issuer":"i","jwksUri":"https://keys.example.com"}]`
	for _, c := range []struct {
		spec           string
		keys, selected bool
	}{
		{`{"selector":{"matchLabels":{"app":"a"}},` + rule + `}`, true, true},
		{`{"selector":{"matchLabels":{"app":"a"}},"moon":"full",` + rule + `}`, false, true},
		{`{"selector":{"moon":"full"},` + rule + `}`, false, false},
	} {
		ra := &securityv1.RequestAuthentication{}
		raw := fmt.Appendf(nil, `{"apiVersion":"security.istio.io/v1","kind":"RequestAuthentication","metadata":{"name":"p","namespace":"shop"},"spec":%s}`, c.spec)
		faults := source.Checker{RootNamespace: "istio-system", Served: true}.Decode(raw, ra)
		got := source.RestrictRequest(ra, faults)
		if keys := got.Spec.JwtRules[0].JwksUri != ""; keys != c.keys || (got.Spec.Selector != nil) != c.selected || (len(faults) == 0) != c.keys {
			t.Errorf("%s: %v, faults %v", c.spec, got.Spec.String(), faults)
		}
	}
}
