package source_test

import (
	"testing"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// servedPolicies are specs that show what can be wrong with one.
var servedPolicies = []string{
	`{"selector":{"matchLabels":{"app":"a"}},"action":"DENY","rules":[{"from":[{"source":{"principals":["cluster.local/ns/a/sa/b"]}}],"to":[{"operation":{"ports":["80"]}}],"when":[{"key":"source.ip","values":["10.0.0.0/8"]}]}]}`,
	`{"action":"CUSTOM","provider":{"name":"x"},"rules":[{"to":[{"operation":{"paths":["/a"]}}]}]}`,
	`{"targetRefs":[{"group":"","kind":"Service","name":"x"}],"rules":[{"from":[{"source":{"moon":["full"]}}]},{"when":[{"key":"x"}]},{}]}`,
	`{"targetRef":{"kind":"Planet"},"action":7,"rules":[{"from":[{}],"to":null}]}`,
	`{"selector":{"matchLabels":{"app":"*"}},"rules":[]}`,
}

// FuzzServedPolicy reads any JSON as an API server's policy. However little is
// understood of it, what stands for it is understood in all parts.
func FuzzServedPolicy(f *testing.F) {
	for _, spec := range servedPolicies {
		f.Add([]byte(`{"metadata":{"name":"p","namespace":"shop"},"spec":` + spec + `}`))
	}
	check := source.Checker{RootNamespace: "istio-system", Served: true}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ap := &securityv1.AuthorizationPolicy{}
		faults := check.Decode(raw, ap)
		if errs := check.Check(source.RestrictAuthorization(ap, faults)); len(errs) > 0 {
			t.Errorf("what stands for the policy is not understood: %v\nfaults %v", errs, faults)
		}
		pa := &securityv1.PeerAuthentication{}
		faults = check.Decode(raw, pa)
		if errs := check.Check(source.RestrictPeer(pa, faults)); len(errs) > 0 {
			t.Errorf("what stands for the PeerAuthentication is not understood: %v\nfaults %v", errs, faults)
		}
	})
}

// TestTruncatedPoliciesAreNotUnderstood cuts each policy at every byte.
func TestTruncatedPoliciesAreNotUnderstood(t *testing.T) {
	for _, spec := range servedPolicies {
		whole := `{"metadata":{"name":"p","namespace":"shop"},"spec":` + spec + `}`
		for n := range len(whole) {
			if faults := (source.Checker{Served: true}).Decode([]byte(whole[:n]), &securityv1.AuthorizationPolicy{}); len(faults) == 0 {
				t.Fatalf("%s is understood", whole[:n])
			}
		}
	}
}
