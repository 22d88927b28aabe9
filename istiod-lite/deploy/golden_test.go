package deploy_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	settings = deploy.Settings{
		Waypoints:  config.Waypoints{Image: "example.com/waypoint:v1", ImagePullPolicy: "IfNotPresent"},
		XDSAddress: "istiod.istio-system.svc:15012", LogLevel: "info", LogFormat: "text", RootNamespace: "istio-system",
	}
	options = translate.Options{TrustDomain: "cluster.local", ClusterID: "Kubernetes", RootNamespace: "istio-system", DomainSuffix: "cluster.local", Kubernetes: true}
)

// TestGatewaysBecomeObjects reads testdata/NAME.yaml, a Gateway and perhaps a
// ConfigMap of parameters, and compares what is made with NAME.golden.yaml, or the
// refusal with it.
func TestGatewaysBecomeObjects(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.yaml") {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs := bytes.Split(text, []byte("\n---\n"))
			var gw gatewayv1.Gateway
			if err := yaml.UnmarshalStrict(docs[0], &gw); err != nil {
				t.Fatal(err)
			}
			gw.UID = "11111111-2222-3333-4444-555555555555"
			var parameters map[string]string
			if len(docs) > 1 {
				var cm corev1.ConfigMap
				if err := yaml.UnmarshalStrict(docs[1], &cm); err != nil {
					t.Fatal(err)
				}
				parameters = cm.Data
			}
			var out bytes.Buffer
			objects, err := deploy.Build(settings, options, &gw, parameters)
			if err != nil {
				out.WriteString("# refused: " + err.Error() + "\n")
			}
			for _, o := range objects {
				data, err := yaml.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				out.WriteString("---\n")
				out.Write(data)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden.yaml"
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, out.Bytes()) {
				t.Errorf("%s is not what is made:\n%s", golden, out.Bytes())
			}
		})
	}
}
