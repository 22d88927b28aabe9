package kube_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

// kubeconfig writes one with the contexts, all of one server.
func kubeconfig(t *testing.T, server, current string, contexts ...string) string {
	t.Helper()
	text := "apiVersion: v1\nkind: Config\ncurrent-context: " + current + "\nusers: [{name: u, user: {token: nonsense}}]\n" +
		"clusters: [{name: c, cluster: {server: \"" + server + "\", insecure-skip-tls-verify: true}}]\ncontexts:\n"
	for _, c := range contexts {
		text += fmt.Sprintf("- {name: %s, context: {cluster: c, user: u, namespace: ns-%s}}\n", c, c)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestErrorsOfConnectSayWhatToDo(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	defer other.Close()
	for _, tt := range []struct {
		name  string
		flags kube.Flags
		want  []string
	}{
		{"no kubeconfig", kube.Flags{}, []string{"no cluster to talk to", "KUBECONFIG", "--kubeconfig"}},
		{"a context without a kubeconfig", kube.Flags{Context: "c"}, []string{`no context "c" to find`, "KUBECONFIG", "--kubeconfig"}},
		{"an empty kubeconfig", kube.Flags{Kubeconfig: os.DevNull}, []string{os.DevNull + " has no context", "--kubeconfig"}},
		{"no such file", kube.Flags{Kubeconfig: "/nowhere/config"}, []string{"--kubeconfig /nowhere/config", "no such file"}},
		{"wrong context", kube.Flags{Kubeconfig: kubeconfig(t, "https://127.0.0.1:1", "a", "b", "a"), Context: "c"}, []string{`"c"`, "which has: a, b"}},
		{"no current context", kube.Flags{Kubeconfig: kubeconfig(t, "https://127.0.0.1:1", `""`, "b", "a")}, []string{"no current context", "--context", "a, b"}},
		{"nobody listens", kube.Flags{Kubeconfig: kubeconfig(t, "https://127.0.0.1:1", "a", "a")}, []string{"https://127.0.0.1:1", "not reachable", "connection refused", `context "a"`}},
		{"no Kubernetes", kube.Flags{Kubeconfig: kubeconfig(t, other.URL, "a", "a")}, []string{other.URL, "not as a Kubernetes API server"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := kube.Connect(t.Context(), tt.flags)
			if err == nil {
				t.Fatal("connected")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestFlagsTellWhetherThereIsACluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if (kube.Flags{}).Configured() || (kube.Flags{}).Given() {
		t.Error("a cluster out of nothing")
	}
	file := kubeconfig(t, "https://127.0.0.1:1", "a", "b", "a")
	f := kube.Flags{Kubeconfig: file}
	if !f.Configured() || !f.Given() || strings.Join(f.Contexts(), " ") != "a b" {
		t.Errorf("configured %v, given %v, contexts %v", f.Configured(), f.Given(), f.Contexts())
	}
	t.Setenv("KUBECONFIG", file)
	if !(kube.Flags{}).Configured() || (kube.Flags{}).Given() {
		t.Error("KUBECONFIG does not count")
	}
}

func TestConnectAndExplainOnARealAPIServer(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	c, err := kube.Connect(t.Context(), kube.Flags{Kubeconfig: api.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	if c.Version.GitVersion == "" || c.Context == "" || c.Namespace != "default" {
		t.Errorf("version %q, context %q, namespace %q", c.Version.GitVersion, c.Context, c.Namespace)
	}
	if _, err := c.Istio.SecurityV1().AuthorizationPolicies("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("Istio's kinds: %v", err)
	}
	if _, err := c.Gateway.GatewayV1().Gateways("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the Gateway API: %v", err)
	}
	if mapping, err := c.Mapper.ResourceFor(metav1.SchemeGroupVersion.WithResource("deployments")); err == nil {
		t.Errorf("mapped %v", mapping)
	}

	t.Run("a missing right names the verb", func(t *testing.T) {
		ns := api.Namespace(t, nil)
		poor, err := kube.New(t.Context(), api.As(ns, "nobody"), "poor", "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = poor.Kubernetes.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		said := poor.Explain(err)
		for _, want := range []string{`context "poor"`, "may not list pods in namespace " + ns, "kubectl auth can-i list pods -n " + ns} {
			if said == nil || !strings.Contains(said.Error(), want) {
				t.Errorf("%v does not say %q", said, want)
			}
		}
		if !apierrors.IsForbidden(said) {
			t.Error("the original error is lost")
		}
		_, err = poor.Kubernetes.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if said := poor.Explain(err); !strings.Contains(fmt.Sprint(said), "may not list nodes in all namespaces") {
			t.Error(said)
		}
		_, err = poor.PodDialer(ns, "web")(t.Context(), 15000)
		if err == nil || !strings.Contains(err.Error(), "port 15000 of pod "+ns+"/web") || !strings.Contains(err.Error(), "pods/portforward") {
			t.Errorf("port-forward: %v", err)
		}
	})
	t.Run("credentials that do not count", func(t *testing.T) {
		config := api.As("a", "b")
		config.Impersonate.UserName = ""
		config.TLSClientConfig.CertData, config.TLSClientConfig.KeyData = nil, nil
		config.TLSClientConfig.CertFile, config.TLSClientConfig.KeyFile = "", ""
		config.BearerToken = "nonsense"
		_, err := kube.New(t.Context(), config, "bad", "")
		if err == nil || !strings.Contains(err.Error(), "does not accept the credentials") {
			t.Errorf("%v", err)
		}
	})
	t.Run("what is no error of the cluster stays as it is", func(t *testing.T) {
		plain := errors.New("plain")
		if got := c.Explain(plain); got != plain || c.Explain(nil) != nil || c.Explain(context.Canceled) != context.Canceled {
			t.Errorf("%v", got)
		}
	})
	t.Run("a pod that is not there", func(t *testing.T) {
		_, err := c.PodDialer("default", "nobody")(t.Context(), 15000)
		if err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("%v", err)
		}
	})
}
