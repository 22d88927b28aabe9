// Command generate writes the files of manifests that are made of others: the
// definitions of foreign kinds, from the modules that go.mod names, and the
// kustomize base, from the chart and its default values. Run it with
// `go generate ./manifests`; with an argument it writes below that folder, for the
// test that looks for drift.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/manifests"
)

// istioKinds are the definitions taken from istio.io/api: what istiod-lite reads
// and the proxies enforce.
var istioKinds = []string{
	"authorizationpolicies.security.istio.io",
	"destinationrules.networking.istio.io",
	"peerauthentications.security.istio.io",
	"requestauthentications.security.istio.io",
	"serviceentries.networking.istio.io",
	"telemetries.telemetry.istio.io",
	"virtualservices.networking.istio.io",
	"workloadentries.networking.istio.io",
}

func main() {
	out := "."
	if len(os.Args) > 1 {
		out = os.Args[1]
	}
	if err := generate(out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(out string) error {
	dir := filepath.Join(out, "chart", "crds")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := gatewayAPI(dir); err != nil {
		return err
	}
	if err := istio(dir); err != nil {
		return err
	}
	if err := own(dir); err != nil {
		return err
	}
	return kustomize(out)
}

// own copies the definitions of Tulle's own kinds, which are written by hand.
func own(dir string) error {
	files, err := filepath.Glob("own/*.yaml")
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// header says where a file is from. Both projects are under the Apache License 2.0,
// as Tulle is, and ask that changes be named.
func header(module, version, change string) string {
	return fmt.Sprintf("# From %s %s, Apache License 2.0; %s.\n# Written by `go generate ./manifests`: do not edit.\n", module, version, change)
}

// gatewayAPI copies the standard channel whole: a part of it would look like a
// broken installation to others that use the Gateway API. Its admission policy
// against downgrades stays out: it would bind everybody's tools in the cluster.
func gatewayAPI(dir string) error {
	const module = "sigs.k8s.io/gateway-api"
	root, version, err := moduleDir(module)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "config/crd/standard/*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if !bytes.Contains(data, []byte("\nkind: CustomResourceDefinition\n")) {
			continue
		}
		data = append([]byte(header(module, version, "unchanged")), data...)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// helmLabels are what Istio's own Helm chart left on its definitions. They would
// tell a cluster's operator that a chart "istio" manages them.
var helmLabels = regexp.MustCompile(`(?m)^    (app|chart|heritage|release): .*\n`)

var definitionName = regexp.MustCompile(`(?m)^  name: (\S+)$`)

func istio(dir string) error {
	const module = "istio.io/api"
	root, version, err := moduleDir(module)
	if err != nil {
		return err
	}
	all, err := os.ReadFile(filepath.Join(root, "kubernetes/customresourcedefinitions.gen.yaml"))
	if err != nil {
		return err
	}
	var found []string
	for doc := range strings.SplitSeq(string(all), "\n---\n") {
		m := definitionName.FindStringSubmatch(doc)
		if m == nil || !slices.Contains(istioKinds, m[1]) {
			continue
		}
		found = append(found, m[1])
		plural, group, _ := strings.Cut(m[1], ".")
		doc = helmLabels.ReplaceAllString(doc, "")
		doc = strings.Replace(doc, "\n  annotations:\n", "\n  annotations:\n    "+manifests.BundleVersion+": "+version+"\n", 1)
		text := header(module, version, "labels of its Helm chart taken out, its version written down") + strings.TrimSpace(doc) + "\n"
		if err := os.WriteFile(filepath.Join(dir, group+"_"+plural+".yaml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if slices.Sort(found); !slices.Equal(found, istioKinds) {
		return fmt.Errorf("%s %s defines %v of %v", module, version, found, istioKinds)
	}
	return nil
}

// kustomize writes two folders to build: the mesh (kustomize), and the mesh with the
// definitions of kinds (the parent, since kustomize reads nothing outside of the
// folder that it builds).
func kustomize(out string) error {
	const written = "# Written by `go generate ./manifests` from the chart and its default values: do not edit.\n"
	dir := filepath.Join(out, "kustomize")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	values, err := manifests.Default()
	if err != nil {
		return err
	}
	files, err := manifests.RenderFiles(manifests.Release{Manager: "kustomize"}, values)
	if err != nil {
		return err
	}
	const head = written + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
	base, whole := head, head
	crds, err := filepath.Glob(filepath.Join(out, "chart/crds/*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range crds {
		whole += "  - chart/crds/" + filepath.Base(f) + "\n"
	}
	whole += "  - kustomize\n"
	for _, f := range files {
		text := strings.TrimSpace(f.Text)
		if text == "" {
			continue
		}
		base += "  - " + f.Name + "\n"
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(written+text+"\n"), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(base), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "kustomization.yaml"), []byte(whole), 0o644)
}

func moduleDir(module string) (dir, version string, err error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", module)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	dir, version, ok := strings.Cut(strings.TrimSpace(string(out)), " ")
	if !ok || dir == "" {
		return "", "", fmt.Errorf("%s is not in the module cache; run `go mod download`", module)
	}
	return dir, version, nil
}
