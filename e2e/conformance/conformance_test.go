package conformance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/sets"

	gateway "sigs.k8s.io/gateway-api/conformance"
	meshtests "sigs.k8s.io/gateway-api/conformance/tests/mesh"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// channel is that of the definitions that `meshctl install` brings; the suite looks
// and puts what it finds into the report.
const channel = "standard"

func TestConformance(t *testing.T) {
	opts := gateway.DefaultOptions(t)
	opts.ConformanceProfiles = []suite.ConformanceProfileName{suite.MeshHTTPConformanceProfileName, suite.MeshGRPCConformanceProfileName}
	opts.GatewayClassName = ""
	opts.NamespaceLabels = namespaceLabels
	opts.SupportedFeatures = everyFeature()
	opts.Implementation.Organization = "tulle-mesh"
	opts.Implementation.Project = "tulle"
	opts.Implementation.URL = "https://github.com/tulle-mesh/tulle"
	opts.Implementation.Contact = []string{"https://github.com/tulle-mesh/tulle/issues"}
	if opts.Implementation.Version == "" {
		t.Fatal("-version is missing: what the report is about")
	}
	whole := opts.RunTest == "" && len(opts.SkipTests) == 0
	if opts.ReportOutputPath == "" && whole {
		opts.ReportOutputPath = filepath.Join(logs, fmt.Sprintf("%s-%s-%s-report.yaml", channel, opts.Implementation.Version, opts.Mode))
	}
	ran := sets.New[string]()
	opts.Hook = func(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
		if !t.Skipped() {
			ran.Insert(test.ShortName)
		}
	}
	// Clean-ups run last in, first out: the report is written by now.
	t.Cleanup(func() {
		if t.Failed() || !whole {
			return
		}
		for _, test := range meshtests.MeshConformanceTests {
			if !ran.Has(test.ShortName) {
				t.Errorf("%s was not run", test.ShortName)
			}
		}
		t.Logf("%d tests of a mesh were run, and all passed", ran.Len())
		if *reports != "" && !t.Failed() {
			keep(t, opts.ReportOutputPath)
		}
	})
	prepare(t, opts.Client, opts.CleanupBaseResources)
	gateway.RunConformanceWithOptions(t, opts)
}

// everyFeature is what the tests of a mesh ask for, all of them, so that none is
// left out, and the extended features of a mesh.
func everyFeature() []features.FeatureName {
	all := features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures)
	for _, test := range meshtests.MeshConformanceTests {
		all.Insert(test.Features...)
	}
	return sets.List(all)
}

// keep copies the report, byte by byte, to where reports are kept.
func keep(t *testing.T, report string) {
	t.Helper()
	content, err := os.ReadFile(report)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(*reports, 0o755))
	at := filepath.Join(*reports, filepath.Base(report))
	require.NoError(t, os.WriteFile(at, content, 0o644))
	t.Logf("report kept in %s", at)
}
