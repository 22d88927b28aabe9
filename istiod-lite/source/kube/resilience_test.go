package kube_test

import (
	"context"
	"strings"
	"testing"
	"time"

	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	istio "istio.io/client-go/pkg/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	policies    = schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}
)

// looseDefinition is a definition of AuthorizationPolicy that lets any spec in,
// as an Istio of the future may.
func looseDefinition() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "authorizationpolicies.security.istio.io"},
		"spec": map[string]any{
			"group": "security.istio.io", "scope": "Namespaced",
			"names": map[string]any{"kind": "AuthorizationPolicy", "listKind": "AuthorizationPolicyList", "plural": "authorizationpolicies", "singular": "authorizationpolicy"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
		},
	}}
}

// create retries while the API server learns of a new kind.
func create(t *testing.T, c dynamic.ResourceInterface, object map[string]any) {
	t.Helper()
	limit := time.Now().Add(deadline)
	for {
		_, err := c.Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// TestKindsComeAndGo starts without any custom kind, adds one, takes it away and
// adds it again.
func TestKindsComeAndGo(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{WithoutCRDs: true})
	t.Cleanup(api.Close)
	custom := must[dynamic.Interface](t)(wrap(dynamic.NewForConfig(api.Config)))
	ns := api.Namespace(t, nil)
	src := run(t, api.Config)
	eventually(t, src, "a first state without custom kinds", func(o *source.Objects) bool { return o.Namespaces[source.Name{Name: ns}] != nil })

	policy := func(moon string) map[string]any {
		return map[string]any{
			"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": map[string]any{"name": "p", "namespace": ns},
			"spec": map[string]any{"action": "DENY", "rules": []any{map[string]any{"from": []any{map[string]any{"source": map[string]any{"moon": moon}}}}}},
		}
	}
	name := source.Name{Namespace: ns, Name: "p"}
	for round := range 2 {
		must[*unstructured.Unstructured](t)(custom.Resource(definitions).Create(t.Context(), looseDefinition(), metav1.CreateOptions{}))
		create(t, custom.Resource(policies).Namespace(ns), policy("full"))
		o := eventually(t, src, "the policy of the new kind", func(o *source.Objects) bool { return o.AuthorizationPolicies[name] != nil })
		if spec := &o.AuthorizationPolicies[name].Spec; spec.Action != security.AuthorizationPolicy_DENY || len(spec.Rules) != 1 || len(spec.Rules[0].From) != 0 {
			t.Errorf("round %d: the policy that is not understood is %v, want one that denies all", round, spec)
		}
		st := src.Status()
		if st.ProblemsTotal == 0 || !strings.Contains(st.Problems[0].Error(), "AuthorizationPolicy "+ns+"/p: spec.rules[0].from[0].source.moon: unknown field") {
			t.Errorf("round %d: problems = %v", round, st.Problems)
		}
		if got := src.Problems(source.Key{Kind: "AuthorizationPolicy", Name: name}); len(got) != st.ProblemsTotal {
			t.Errorf("round %d: the policy's problems = %v", round, got)
		}
		if err := custom.Resource(definitions).Delete(t.Context(), "authorizationpolicies.security.istio.io", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, src, "the policy to go with its kind", func(o *source.Objects) bool {
			return len(o.AuthorizationPolicies) == 0 && src.Status().ProblemsTotal == 0
		})
		await(t, func() bool {
			_, err := custom.Resource(definitions).Get(t.Context(), "authorizationpolicies.security.istio.io", metav1.GetOptions{})
			return err != nil
		})
	}
}

func wrap(c *dynamic.DynamicClient, err error) (dynamic.Interface, error) { return c, err }

func await(t *testing.T, holds func() bool) {
	t.Helper()
	limit := time.After(deadline)
	for !holds() {
		select {
		case <-limit:
			t.Fatal("waited in vain")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestAnAPIServerThatRestartsTakesNothingAway watches the state at every moment
// while the API server goes and comes, and changes while it comes.
func TestAnAPIServerThatRestartsTakesNothingAway(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{})
	t.Cleanup(api.Close)
	ns, ctx := api.Namespace(t, nil), t.Context()
	istioClient := must[*istio.Clientset](t)(istio.NewForConfig(api.Config))
	must[*corev1.Pod](t)(api.Client.CoreV1().Pods(ns).Create(ctx, pod(ns, "stays"), metav1.CreateOptions{}))
	must[*securityv1.AuthorizationPolicy](t)(istioClient.SecurityV1().AuthorizationPolicies(ns).Create(ctx,
		&securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "stays"}}, metav1.CreateOptions{}))
	src := run(t, api.Config)
	name := source.Name{Namespace: ns, Name: "stays"}
	first := eventually(t, src, "the first state", func(o *source.Objects) bool { return o.Pods[name] != nil && o.AuthorizationPolicies[name] != nil })

	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for watching.Err() == nil {
			o := src.Objects()
			if o.Pods[name] != first.Pods[name] || o.AuthorizationPolicies[name] != first.AuthorizationPolicies[name] {
				t.Errorf("an object that stayed went or became another: %v %v", o.Pods[name], o.AuthorizationPolicies[name])
				return
			}
			select {
			case <-src.Changed():
			case <-time.After(time.Millisecond):
			case <-watching.Done():
			}
		}
	}()
	if err := api.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	must[*corev1.Pod](t)(api.Client.CoreV1().Pods(ns).Create(ctx, pod(ns, "new"), metav1.CreateOptions{}))
	must[*securityv1.AuthorizationPolicy](t)(istioClient.SecurityV1().AuthorizationPolicies(ns).Create(ctx,
		&securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{}))
	await(t, func() bool {
		o := src.Objects()
		return o.Pods[source.Name{Namespace: ns, Name: "new"}] != nil && o.AuthorizationPolicies[source.Name{Namespace: ns, Name: "new"}] != nil
	})
	stop()
	<-done
	await(t, func() bool { return src.Status().ProblemsTotal == 0 })
}

// TestWhatMayNotBeReadHoldsTheStartBack asks as somebody without rights.
func TestWhatMayNotBeReadHoldsTheStartBack(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	config := rest.CopyConfig(api.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	src := run(t, config)
	await(t, func() bool { return src.Status().ProblemsTotal >= 6 }) // the core kinds and the definitions
	if src.Synced() || src.Objects() != nil {
		t.Error("a state is in force")
	}
	if p := src.Status().Problems[0].Error(); !strings.Contains(p, "forbidden") || !strings.Contains(p, "nothing is in force before") {
		t.Errorf("problem = %s", p)
	}
}
