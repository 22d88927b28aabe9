package manifests

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

// chart needs all:, since Go otherwise leaves out the templates' _helpers.tpl.
//
//go:embed all:chart
var chart embed.FS

// BundleVersion is the annotation that says which version of istio.io/api one of its
// definitions is from. The Gateway API's have an annotation of their own for this.
const BundleVersion = "tulle-mesh.github.io/istio-api-version"

// CRDs returns the definitions of the kinds that a mesh reads, one YAML document
// each: the standard channel of the Gateway API, and of Istio's kinds those that
// Tulle enforces. A kind that it would ignore, such as RequestAuthentication, is
// not among them: an API server that takes such an object promises what nobody
// keeps.
func CRDs() [][]byte {
	var list [][]byte
	for _, name := range chartFiles("crds", ".yaml") {
		list = append(list, mustRead(name))
	}
	return list
}

// chartFiles lists the files of a folder of the chart, sorted by name.
func chartFiles(dir string, extensions ...string) []string {
	entries, err := fs.ReadDir(chart, path.Join("chart", dir))
	if err != nil {
		panic("manifests: the embedded chart has no " + dir)
	}
	var list []string
	for _, e := range entries {
		for _, ext := range extensions {
			if strings.HasSuffix(e.Name(), ext) {
				list = append(list, path.Join("chart", dir, e.Name()))
			}
		}
	}
	return list
}

// mustRead panics for a file that is not embedded: a mistake of the build.
func mustRead(name string) []byte {
	data, err := chart.ReadFile(name)
	if err != nil {
		panic("manifests: " + err.Error())
	}
	return data
}
