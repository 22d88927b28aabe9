package manifests

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Release says for whom the chart is rendered, beside the values. Its fields are
// what templates see as .Release and .Chart.AppVersion.
type Release struct {
	// Namespace of the mesh, "" means istio-system. Clients of Istio look there.
	Namespace string
	// Version is the tag of the images where the values name none; "" means the chart's.
	Version string
	// Manager is who keeps the objects, as their label app.kubernetes.io/managed-by;
	// "" means meshctl. For "Helm" the namespace itself is left out.
	Manager string
}

// DefaultNamespace is where a mesh is, unless told otherwise.
const DefaultNamespace = "istio-system"

// Render returns the objects of a mesh, in the order in which to apply them: the
// namespace and what others refer to first. values are checked against the chart's
// schema; they must be complete, so merge them into [Default]. The definitions of
// kinds are not among the objects, see [CRDs].
func Render(r Release, values Values) ([]*unstructured.Unstructured, error) {
	files, err := RenderFiles(r, values)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, f := range files {
		list, err := Decode([]byte(f.Text))
		if err != nil {
			return nil, fmt.Errorf("chart/templates/%s: %w", f.Name, err)
		}
		objects = append(objects, list...)
	}
	SortForApply(objects)
	return objects, nil
}

// File is what one template gives: YAML documents, maybe none.
type File struct{ Name, Text string }

// RenderFiles is [Render] for readers of text: the templates in the order of their
// names, with their comments.
func RenderFiles(r Release, values Values) ([]File, error) {
	if err := Validate(values); err != nil {
		return nil, err
	}
	all, data, err := templates(r, values)
	if err != nil {
		return nil, err
	}
	var out []File
	for _, name := range chartFiles("templates", ".yaml") {
		name = path.Base(name)
		var b strings.Builder
		if err := all.ExecuteTemplate(&b, name, data); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
		out = append(out, File{name, b.String()})
	}
	return out, nil
}

// templates parses the chart's templates, with those of Helm's functions that they
// use, and makes what they are given.
func templates(r Release, values Values) (*template.Template, map[string]any, error) {
	if r.Namespace == "" {
		r.Namespace = DefaultNamespace
	}
	if r.Manager == "" {
		r.Manager = "meshctl"
	}
	var meta struct {
		Name, Version, AppVersion string
	}
	if err := yaml.Unmarshal(mustRead("chart/Chart.yaml"), &meta); err != nil {
		return nil, nil, fmt.Errorf("chart/Chart.yaml: %w", err)
	}
	if r.Version != "" {
		meta.AppVersion = r.Version
	}
	data := map[string]any{
		"Values":  map[string]any(values),
		"Chart":   meta,
		"Release": map[string]any{"Name": "tulle", "Namespace": r.Namespace, "Service": r.Manager},
		"Files":   files{},
	}
	all := template.New("chart").Option("missingkey=error")
	functions := sprig.TxtFuncMap()
	// Helm takes these two away: what is installed must not depend on who installs it.
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["toYaml"] = toYAML
	functions["include"] = func(name string, data any) (string, error) {
		var b strings.Builder
		err := all.ExecuteTemplate(&b, name, data)
		return b.String(), err
	}
	all.Funcs(functions)
	for _, name := range chartFiles("templates", ".tpl", ".yaml") {
		if _, err := all.New(path.Base(name)).Parse(string(mustRead(name))); err != nil {
			return nil, nil, fmt.Errorf("chart: %w", err)
		}
	}
	return all, data, nil
}

// toYAML is Helm's: no line end, for nindent adds its own.
func toYAML(v any) (string, error) {
	data, err := yaml.Marshal(v)
	return strings.TrimSuffix(string(data), "\n"), err
}

// files are the chart's files that are no templates, as .Files.
type files struct{}

// Get returns the content of a file of the chart.
func (files) Get(name string) (string, error) {
	data, err := fs.ReadFile(chart, path.Join("chart", name))
	return string(data), err
}

// Decode reads YAML documents into objects; documents without content are skipped.
func Decode(data []byte) ([]*unstructured.Unstructured, error) {
	var list []*unstructured.Unstructured
	for i, doc := range bytes.Split(append([]byte("\n"), data...), []byte("\n---\n")) {
		var content map[string]any
		if err := yaml.UnmarshalStrict(doc, &content); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if len(content) == 0 {
			continue
		}
		// Numbers as the API's own decoder gives them: whole ones are int64.
		raw, err := yaml.YAMLToJSON(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(raw); err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		list = append(list, o)
	}
	return list, nil
}
