package translate_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// TestProvidersFollowTheMeshsConfiguration changes it, spoils it, and takes its service
// away and back.
func TestProvidersFollowTheMeshsConfiguration(t *testing.T) {
	objects := read(t, "testdata/waypoint-providers.in.yaml", false)
	name := source.Name{Namespace: "istio-system", Name: "istio"}
	good := objects.ConfigMaps[name].Data["mesh"]
	store := source.NewStore()
	for _, kind := range []string{"ConfigMap", "Service", "ServiceEntry", "Gateway", "Pod", "AuthorizationPolicy", "Namespace"} {
		for _, key := range objects.Keys(kind) {
			store.Put(objects.Object(key))
		}
	}
	translator := translate.New(translate.Options{})
	ask := func(policy string) *apiwaypoint.ExternalAuth {
		t.Helper()
		mesh := translator.Translate(store.Objects())
		return mesh.WaypointPolicies["shop/"+policy].Body.(*apiwaypoint.Policy).GetExternalAuth()
	}
	warned := func(text string) bool {
		for _, w := range translator.Translate(store.Objects()).Warnings {
			if strings.Contains(w.Object+": "+w.Message, text) {
				return true
			}
		}
		return false
	}
	config := func(text string) {
		store.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Data: map[string]string{"mesh": text}})
	}
	if a := ask("a-grpc"); a.GetBackend().GetService() != "auth/authz.auth.svc.cluster.local" || !a.GetFailOpen() {
		t.Fatalf("%v", a)
	}
	config(strings.Replace(good, "failOpen: true\n", "failOpen: false\n", 1))
	if a := ask("a-grpc"); a == nil || a.GetFailOpen() {
		t.Errorf("changed: %v", a)
	}
	config("extensionProviders: {")
	if a := ask("a-grpc"); a == nil || a.GetFailOpen() {
		t.Errorf("spoilt: %v", a)
	}
	if !warned("ConfigMap istio-system/istio: mesh: cannot be read, and the configuration from before stays in force") {
		t.Error("nobody is told")
	}
	config(good)
	if a := ask("a-grpc"); !a.GetFailOpen() || warned("cannot be read") {
		t.Errorf("mended: %v", a)
	}
	svc := objects.Services[source.Name{Namespace: "auth", Name: "authz"}]
	store.Delete(source.KeyOf(svc))
	if a := ask("a-grpc"); a != nil || !warned("a-grpc: the provider \"grpc\" cannot be asked: Service auth/authz does not exist") {
		t.Errorf("without its service: %v", a)
	}
	store.Put(svc)
	if a := ask("a-grpc"); a == nil {
		t.Error("with its service again")
	}
	store.Delete(source.Key{Kind: "ConfigMap", Name: name})
	if a := ask("a-grpc"); a != nil || !warned(`no provider "grpc"`) {
		t.Errorf("without configuration: %v", a)
	}
}
