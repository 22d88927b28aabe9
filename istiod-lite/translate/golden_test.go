package translate_test

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// options of the cases that need other than the defaults.
var options = map[string]translate.Options{
	"trust-domain": {TrustDomain: "prod.example.com", ClusterID: "east", Network: "net-1", RootNamespace: "mesh-root", DomainSuffix: "corp.local"},
}

// TestGolden translates testdata/NAME.in.yaml and compares with NAME.golden.yaml.
// Names that start with k8s- are of objects that an API server sent.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			options := options[name]
			options.Kubernetes = strings.HasPrefix(name, "k8s-")
			objects := read(t, input, options.Kubernetes)
			got := render(t, translate.Translate(objects, options))
			golden := filepath.Join("testdata", name+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func read(t testing.TB, path string, served bool) *source.Objects {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objects, problems := file.Decode(path, content, source.Checker{RootNamespace: "istio-system", Served: served})
	for _, p := range problems {
		t.Error(p.Error())
	}
	if len(problems) > 0 {
		t.FailNow()
	}
	return objects
}

// render writes a mesh as YAML that people can review.
func render(t testing.TB, mesh *translate.Mesh) string {
	t.Helper()
	var b strings.Builder
	for _, section := range []struct {
		name      string
		resources map[string]*translate.Resource
	}{{"address", mesh.Addresses}, {"authorization", mesh.Authorizations}, {"waypoint service", mesh.WaypointServices}, {"waypoint policy", mesh.WaypointPolicies},
		{"waypoint authentication", mesh.WaypointAuthentications}, {"waypoint rate limit", mesh.WaypointRateLimits},
		{"waypoint destination", mesh.WaypointDestinations}, {"waypoint telemetry", mesh.WaypointTelemetries}} {
		for _, name := range slices.Sorted(maps.Keys(section.resources)) {
			r := section.resources[name]
			body, err := protojson.Marshal(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(body, &v); err != nil {
				t.Fatal(err)
			}
			readable(v)
			out := map[string]any{"body": v}
			if len(r.Aliases) > 0 {
				out["aliases"] = r.Aliases
			}
			text, err := yaml.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "# %s %s\n%s---\n", section.name, name, text)
		}
	}
	for _, w := range mesh.Warnings {
		fmt.Fprintf(&b, "# warning: %s: %s\n", w.Object, w.Message)
	}
	return b.String()
}

// readable replaces base64 addresses by their text.
func readable(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			switch e := e.(type) {
			case string:
				if k == "address" {
					v[k] = addressText(e)
				}
			case []any:
				if k == "addresses" {
					for i := range e {
						if s, ok := e[i].(string); ok {
							e[i] = addressText(s)
						}
					}
				}
			}
			readable(e)
		}
	case []any:
		for _, e := range v {
			readable(e)
		}
	}
}

func addressText(s string) string {
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return s
	}
	if a, ok := netip.AddrFromSlice(raw); ok {
		return a.String()
	}
	return s
}
