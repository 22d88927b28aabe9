package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/install"
	"github.com/tulle-mesh/tulle/meshctl/membership"
)

func TestValuesOfSeveralSourcesGoBeforeOneAnother(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": "istiod:\n  replicas: 3\ncarrier: h2\n", "b.yaml": "istiod: {replicas: 4}\nhub: null\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v := valueFlags{files: []string{filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml"), "-"}, assignments: []string{"carrier=h3", "network=x"}}
	got, err := v.read(strings.NewReader("network: y\n"))
	want := manifests.Values{"istiod": map[string]any{"replicas": float64(4)}, "carrier": "h3", "hub": nil, "network": "x"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%#v, %v", got, err)
	}
	for _, v := range []valueFlags{{files: []string{filepath.Join(dir, "none")}}, {files: []string{"-"}}, {assignments: []string{"x"}}} {
		if _, err := v.read(strings.NewReader("a: 1\na: 2\n")); err == nil || !strings.HasPrefix(err.Error(), "--") {
			t.Errorf("%+v: %v", v, err)
		}
	}
}

func TestObjectsArePrintedWithoutACluster(t *testing.T) {
	var b bytes.Buffer
	if err := writeObjects(&b, install.Options{Version: "v9"}, "yaml"); err != nil {
		t.Fatal(err)
	}
	objects, err := manifests.Decode(b.Bytes())
	if err != nil || len(objects) < 30 || objects[0].GetKind() != "CustomResourceDefinition" || !strings.Contains(b.String(), "ghcr.io/tulle-mesh/ztunnel:v9") {
		t.Errorf("%d objects, %v", len(objects), err)
	}
	b.Reset()
	if err := writeObjects(&b, install.Options{Version: "v9"}, "json"); err != nil || !strings.HasPrefix(b.String(), "{\n  \"apiVersion\": \"v1\",\n  \"items\": [") {
		t.Errorf("%.80s, %v", b.String(), err)
	}
}

func TestAPlanShowsWhatChangesAndWhatStays(t *testing.T) {
	var b bytes.Buffer
	ref := install.Ref{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: "istio-system", Name: "ztunnel"}
	printPlan(&b, &install.Report{Changes: []install.Change{
		{Ref: ref, Action: install.Changed, Fields: []string{"spec.x: a -> b"}},
		{Ref: ref, Action: install.Unchanged},
		{Ref: ref, Action: install.Kept, Note: "newer"},
	}})
	want := `change   DaemonSet istio-system/ztunnel
           spec.x: a -> b
keep     DaemonSet istio-system/ztunnel (newer)
1 objects would change
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	b.Reset()
	printPlan(&b, &install.Report{Changes: []install.Change{{Ref: ref, Action: install.Unchanged}}})
	if b.String() != "nothing would change\n" {
		t.Errorf("%s", b.String())
	}
}

func TestNamespacesAreListedWithReasonsBelow(t *testing.T) {
	var b bytes.Buffer
	printNamespaces(&b, []membership.Namespace{
		{Name: "shop", Mode: "ambient", In: 1, Pending: 1, Pods: []membership.Pod{{Name: "a", State: membership.In}, {Name: "b", State: membership.Pending, Why: "no ztunnel is ready on n2"}}},
		{Name: "istio-system", Excluded: true, Out: 1, Pods: []membership.Pod{{Name: "z", State: membership.Out, Why: "x"}}},
	})
	want := `NAMESPACE     MODE      PODS  IN  PENDING  NOT
shop          ambient   2     1   1        0
istio-system  excluded  1     0   0        1
shop/b: pending, no ztunnel is ready on n2
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func TestAMissingMeshIsSaidOnceForAllPods(t *testing.T) {
	var b bytes.Buffer
	printReasons(&b, []membership.Namespace{{Name: "shop", Pending: 2, Pods: []membership.Pod{
		{Name: "a", State: membership.Pending, Why: membership.NoMesh}, {Name: "b", State: membership.Pending, Why: membership.NoMesh}}}})
	if b.String() != membership.NoMesh+"\n" {
		t.Errorf("%s", b.String())
	}
}

// TestNobodyIsAskedWhereNobodyAnswers holds what tells a terminal from the rest.
func TestNobodyIsAskedWhereNobodyAnswers(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if isTerminal(null) || isTerminal(file) {
		t.Error("taken for a terminal")
	}
}
