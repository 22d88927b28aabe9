package manifests_test

import (
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/manifests"
)

func TestEveryDefinitionIsOne(t *testing.T) {
	var names []string
	for _, data := range manifests.CRDs() {
		objects, err := manifests.Decode(data)
		if err != nil || len(objects) != 1 {
			t.Fatalf("%d objects, %v", len(objects), err)
		}
		o := objects[0]
		if o.GetKind() != "CustomResourceDefinition" {
			t.Errorf("%s %s", o.GetKind(), o.GetName())
		}
		for key := range o.GetLabels() {
			if key == "chart" || key == "heritage" || key == "release" {
				t.Errorf("%s has the label %s of another chart", o.GetName(), key)
			}
		}
		names = append(names, o.GetName())
	}
	for _, want := range []string{
		"gateways.gateway.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io",
		"grpcroutes.gateway.networking.k8s.io", "authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io",
		"requestauthentications.security.istio.io", "telemetries.telemetry.istio.io",
		"serviceentries.networking.istio.io", "workloadentries.networking.istio.io", "destinationrules.networking.istio.io", "virtualservices.networking.istio.io",
		"faultpolicies.policy.tulle.dev", "backendpolicies.policy.tulle.dev", "ratelimitpolicies.policy.tulle.dev",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no definition of %s", want)
		}
	}
}
