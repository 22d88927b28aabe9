package manifests_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/manifests"
)

// TestOwnDefinitionsSayWhatTheTypesSay compares the schemas of Tulle's own kinds with
// the types into which istiod-lite reads them: a field of one alone would be refused
// or lost.
func TestOwnDefinitionsSayWhatTheTypesSay(t *testing.T) {
	types := map[string]reflect.Type{
		"FaultPolicy": reflect.TypeFor[policyv1alpha1.FaultPolicy](), "BackendPolicy": reflect.TypeFor[policyv1alpha1.BackendPolicy](),
		"RateLimitPolicy": reflect.TypeFor[policyv1alpha1.RateLimitPolicy](),
	}
	for _, data := range manifests.CRDs() {
		objects, err := manifests.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := unstructured.NestedString(objects[0].Object, "spec", "names", "kind")
		typ := types[kind]
		if typ == nil {
			continue
		}
		delete(types, kind)
		versions, _, _ := unstructured.NestedSlice(objects[0].Object, "spec", "versions")
		schema, _, _ := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema")
		for _, part := range []string{"spec", "status"} {
			field, _ := typ.FieldByName(strings.ToUpper(part[:1]) + part[1:])
			properties, _, _ := unstructured.NestedMap(schema, "properties", part)
			compareSchema(t, kind+"."+part, properties, field.Type)
		}
	}
	for kind := range types {
		t.Errorf("no definition of %s", kind)
	}
}

func compareSchema(t *testing.T, path string, schema map[string]any, typ reflect.Type) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := map[reflect.Kind]string{reflect.Struct: "object", reflect.Slice: "array", reflect.String: "string", reflect.Bool: "boolean", reflect.Int32: "integer", reflect.Int64: "integer"}[typ.Kind()]
	if typ == reflect.TypeFor[metav1.Time]() {
		want = "string"
	}
	if schema["type"] != want {
		t.Errorf("%s is %v, and %s in the type", path, schema["type"], want)
		return
	}
	switch want {
	case "array":
		items, _ := schema["items"].(map[string]any)
		compareSchema(t, path+"[]", items, typ.Elem())
	case "object":
		properties, _ := schema["properties"].(map[string]any)
		var names []string
		for _, f := range reflect.VisibleFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				if options != "inline" {
					t.Errorf("%s: the field %s has no name", path, f.Name)
				}
				continue
			}
			names = append(names, name)
			property, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s.%s is not in the definition", path, name)
				continue
			}
			compareSchema(t, path+"."+name, property, f.Type)
		}
		for name := range properties {
			if !slices.Contains(names, name) {
				t.Errorf("%s.%s is not in the type", path, name)
			}
		}
	}
}
