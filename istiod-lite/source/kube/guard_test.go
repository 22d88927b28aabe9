package kube_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// starting is an API server that does not serve some kinds yet, although they are
// defined: it answers as one does that has just started.
type starting struct {
	config  *rest.Config
	unknown atomic.Pointer[map[string]bool] // resources, as group/version/resource
	refused atomic.Int64
}

func startingServer(t *testing.T, config *rest.Config, unknown ...string) *starting {
	t.Helper()
	s := &starting{}
	set := map[string]bool{}
	for _, resource := range unknown {
		set[resource] = true
	}
	s.unknown.Store(&set)
	target := must[*url.URL](t)(url.Parse(config.Host))
	transport := must[http.RoundTripper](t)(rest.TransportFor(config))
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (*s.unknown.Load())[strings.TrimPrefix(r.URL.Path, "/apis/")] {
			s.refused.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","code":404}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.config = &rest.Config{Host: server.URL}
	return s
}

// TestWhatGuardsIsAwaited has an API server answer "not found" for one kind after the
// other: what closes something, or protects it, is not left out for it.
func TestWhatGuardsIsAwaited(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	for _, resource := range []string{
		"security.istio.io/v1/authorizationpolicies", "security.istio.io/v1/requestauthentications", "security.istio.io/v1/peerauthentications",
		"networking.istio.io/v1/destinationrules", "networking.istio.io/v1/virtualservices", "gateway.networking.k8s.io/v1/backendtlspolicies",
		"gateway.networking.k8s.io/v1/gateways", "gateway.networking.k8s.io/v1/httproutes", "policy.tulle.dev/v1alpha1/ratelimitpolicies",
	} {
		t.Run(resource, func(t *testing.T) {
			t.Parallel()
			server := startingServer(t, api.Config, resource)
			src := run(t, server.config)
			await(t, func() bool { return server.refused.Load() >= 3 })
			if src.Synced() || src.Objects() != nil {
				t.Fatal("a state is in force without it")
			}
			server.unknown.Store(&map[string]bool{})
			await(t, src.Synced)
		})
	}
}

// TestWhatAddsIsNotAwaited holds that a kind which guards nothing keeps nobody waiting.
func TestWhatAddsIsNotAwaited(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	server := startingServer(t, api.Config, "policy.tulle.dev/v1alpha1/faultpolicies", "telemetry.istio.io/v1/telemetries", "policy.tulle.dev/v1alpha1/backendpolicies")
	src := run(t, server.config)
	await(t, src.Synced)
	await(t, func() bool {
		for _, p := range src.Status().Problems {
			if p.Object == "Telemetry" && strings.Contains(p.Message, "the mesh goes on without it") {
				return true
			}
		}
		return false
	})
}

// TestAKindInOtherVersionsOnlyIsNotAwaited is a cluster with an older Gateway API.
func TestAKindInOtherVersionsOnlyIsNotAwaited(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{WithoutCRDs: true})
	t.Cleanup(api.Close)
	custom := must[dynamic.Interface](t)(wrap(dynamic.NewForConfig(api.Config)))
	definition := func(group, plural, kind, version string) {
		must[*unstructured.Unstructured](t)(custom.Resource(definitions).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": map[string]any{"name": plural + "." + group},
			"spec": map[string]any{
				"group": group, "scope": "Namespaced",
				"names": map[string]any{"kind": kind, "listKind": kind + "List", "plural": plural, "singular": strings.ToLower(kind)},
				"versions": []any{map[string]any{"name": version, "served": true, "storage": true,
					"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
			},
		}}, metav1.CreateOptions{}))
		await(t, func() bool {
			_, err := custom.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: plural}).List(t.Context(), metav1.ListOptions{})
			return err == nil
		})
	}
	definition("networking.istio.io", "destinationrules", "DestinationRule", "v1beta1")
	src := run(t, api.Config)
	await(t, src.Synced)
	definition("security.istio.io", "authorizationpolicies", "AuthorizationPolicy", "v1beta1")
	next := run(t, api.Config)
	await(t, func() bool {
		for _, p := range next.Status().Problems {
			if p.Object == "AuthorizationPolicy" && strings.Contains(p.Message, "nothing is in force before it can be read") {
				return true
			}
		}
		return false
	})
	if next.Synced() {
		t.Error("policies of another version count for nothing")
	}
	if o := src.Objects(); o == nil || o.Object(source.Key{Kind: "Namespace", Name: source.Name{Name: "default"}}) == nil {
		t.Error("the mesh does not go on without the rules")
	}
}
