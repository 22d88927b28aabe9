package manifests_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/manifests"
)

// TestHelmRendersTheSame gives both the same values.
func TestHelmRendersTheSame(t *testing.T) {
	program := roottest.Tool(t, "../e2e/tools/helm", "helm")
	for name, assignments := range map[string][]string{
		"defaults": nil,
		"much set": {
			"istiod.replicas=3", "carrier=h3", "network=here", "tag=v9", "istiod.affinity={nodeAffinity: {}}",
			"ztunnel.extraArgs=[--same-node-encrypt, '--memory-limit=1']", "imagePullSecrets=[{name: registry}]",
			"ztunnel.resources.limits.memory=256Mi", "monitoring.dashboards.enabled=true", "monitoring.rules.enabled=true",
			"istiod.podAnnotations={a/b: c}", "excludedNamespaces=[x]", "ztunnel.drainSeconds=3600",
		},
	} {
		t.Run(name, func(t *testing.T) {
			given := manifests.Values{}
			for _, a := range assignments {
				v, err := manifests.Set(a)
				if err != nil {
					t.Fatal(err)
				}
				given = manifests.Override(given, v)
			}
			raw, err := json.Marshal(given)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program, "template", "tulle", "chart", "--namespace", "istio-system", "--values", file,
				"--kube-version", "1.36.0") // without its linker flags helm believes in 1.20
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("helm template: %v\n%s", err, stderr.String())
			}
			got := byName(t, decode(t, out))
			objects, err := manifests.Render(manifests.Release{Manager: "Helm"}, manifests.Merge(defaults(t), given))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(byName(t, objects), got); diff != "" {
				t.Errorf("meshctl (-) and helm (+):\n%s", diff)
			}
		})
	}

	for assignment, want := range map[string]string{"istiod.replica=3": "replica", "carrier=h4": "carrier"} {
		out, err := exec.Command(program, "template", "tulle", "chart", "--kube-version", "1.36.0", "--set", assignment).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("helm takes %s: %v\n%.300s", assignment, err, out)
		}
	}
	if out, err := exec.Command(program, "lint", "--strict", "chart").CombinedOutput(); err != nil {
		t.Errorf("helm lint: %v\n%s", err, out)
	}
}

// TestKustomizeBuildsTheSame builds both folders.
func TestKustomizeBuildsTheSame(t *testing.T) {
	bin, err := kubetest.Binaries()
	if err != nil {
		roottest.Skip(t, err.Error())
	}
	build := func(folder string) map[string]any {
		t.Helper()
		out, err := exec.Command(filepath.Join(bin, "kubectl"), "kustomize", folder).Output()
		if err != nil {
			t.Fatalf("kubectl kustomize %s: %v", folder, err)
		}
		return byName(t, decode(t, out))
	}
	want := byName(t, render(t, manifests.Release{Manager: "kustomize"}))
	if diff := cmp.Diff(want, build("kustomize")); diff != "" {
		t.Errorf("chart (-) and kustomize (+):\n%s", diff)
	}
	if got := build("."); len(got) != len(want)+len(manifests.CRDs()) {
		t.Errorf("%d objects with the definitions, want %d", len(got), len(want)+len(manifests.CRDs()))
	}
}

func decode(t *testing.T, data []byte) []*unstructured.Unstructured {
	t.Helper()
	objects, err := manifests.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func byName(t *testing.T, objects []*unstructured.Unstructured) map[string]any {
	t.Helper()
	out := make(map[string]any)
	for _, o := range objects {
		key := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if out[key] != nil {
			t.Errorf("%s twice", key)
		}
		out[key] = o.Object
	}
	return out
}
