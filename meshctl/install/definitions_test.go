package install_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/install"
)

var definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// put makes one of the mesh's definitions as somebody else would.
func put(t *testing.T, f *fixture, name string, change func(*unstructured.Unstructured)) {
	t.Helper()
	for _, data := range manifests.CRDs() {
		objects, err := manifests.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		o := objects[0]
		if o.GetName() != name {
			continue
		}
		change(o)
		if _, err := f.Client.Dynamic.Resource(definitionResource).Create(t.Context(), o, metav1.CreateOptions{FieldManager: "somebody"}); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no definition %s", name)
}

func bundle(version string) func(*unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		o.SetAnnotations(map[string]string{"gateway.networking.k8s.io/bundle-version": version, "gateway.networking.k8s.io/channel": "standard",
			"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/4530"})
	}
}

func TestDefinitionsOfOthersStay(t *testing.T) {
	f := mesh(t, kubetest.Start(t, kubetest.Options{ControllerManager: true, WithoutCRDs: true}))
	put(t, f, "gateways.gateway.networking.k8s.io", bundle("v1.9.0"))
	put(t, f, "httproutes.gateway.networking.k8s.io", bundle("v1.6.2"))
	put(t, f, "serviceentries.networking.istio.io", func(o *unstructured.Unstructured) { o.SetAnnotations(nil) })

	report := f.install(install.Options{})
	notes := make(map[string]string)
	for _, c := range report.Changes {
		if c.Kind == "CustomResourceDefinition" {
			notes[c.Name] = string(c.Action) + " " + c.Note
		}
	}
	for name, want := range map[string]string{
		"gateways.gateway.networking.k8s.io":        "kept v1.9.0 is newer than v1.6.3",
		"httproutes.gateway.networking.k8s.io":      "kept already there, of release v1.6.2",
		"serviceentries.networking.istio.io":        "kept already there, of an unknown release",
		"grpcroutes.gateway.networking.k8s.io":      "created ",
		"tcproutes.gateway.networking.k8s.io":       "kept left out",
		"authorizationpolicies.security.istio.io":   "created ",
		"workloadentries.networking.istio.io":       "created ",
		"gatewayclasses.gateway.networking.k8s.io":  "created ",
		"peerauthentications.security.istio.io":     "created ",
		"referencegrants.gateway.networking.k8s.io": "kept left out",
	} {
		if !strings.HasPrefix(notes[name], want) {
			t.Errorf("%s: %q, want %q", name, notes[name], want)
		}
	}
	if report := f.install(install.Options{}); !report.Same() {
		t.Errorf("again: created %s; changed %s", changes(report, install.Created), changes(report, install.Changed))
	}

	// What is ours is taken back, whoever has edited it.
	_, err := f.Client.Dynamic.Resource(definitionResource).Patch(t.Context(), "workloadentries.networking.istio.io", types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/spec/names/shortNames","value":["mine"]}]`), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	if got := changes(f.install(install.Options{}), install.Changed); !strings.Contains(got, "workloadentries.networking.istio.io spec.names.shortNames[0]: mine -> we") {
		t.Errorf("edited by somebody: changed %s", got)
	}

	// An object of a kind keeps its definition from going.
	policy := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
		"metadata": map[string]any{"name": "p", "namespace": "default"}, "spec": map[string]any{}}}
	policies := f.Client.Dynamic.Resource(schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}).Namespace("default")
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.Uninstall(t.Context(), install.UninstallOptions{Definitions: true, Wait: patience})
	if err == nil || !strings.Contains(err.Error(), "authorizationpolicies.security.istio.io (1)") {
		t.Errorf("with a policy: %v", err)
	}
	if err := policies.Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	report, err = f.Uninstall(t.Context(), install.UninstallOptions{Definitions: true, Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	removed := changes(report, install.Removed)
	if !strings.Contains(removed, "authorizationpolicies.security.istio.io") || strings.Contains(removed, "gateways.gateway") || strings.Contains(removed, "serviceentries") {
		t.Errorf("removed: %s", removed)
	}
}

func TestADefinitionWithoutTheVersionThatIsNeededIsAnError(t *testing.T) {
	f := mesh(t, kubetest.Start(t, kubetest.Options{WithoutCRDs: true}))
	put(t, f, "authorizationpolicies.security.istio.io", func(o *unstructured.Unstructured) {
		versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
		var old []any
		for _, v := range versions {
			if v.(map[string]any)["name"] == "v1beta1" {
				v.(map[string]any)["storage"] = true
				old = append(old, v)
			}
		}
		if err := unstructured.SetNestedSlice(o.Object, old, "spec", "versions"); err != nil {
			t.Fatal(err)
		}
	})
	_, err := f.Install(t.Context(), install.Options{Version: "1.2.0"})
	if err == nil || !strings.Contains(err.Error(), "does not serve v1") {
		t.Error(err)
	}
}
