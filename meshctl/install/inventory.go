package install

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/manifests"
)

// inventoryName is the ConfigMap, in the mesh's namespace, that remembers what was
// installed: the version, the values that were given, and every object, so that a
// later version can take away what it no longer has.
const inventoryName = "meshctl-install"

// Inventory is what that ConfigMap says.
type Inventory struct {
	// Version of meshctl that wrote it, and of the mesh's images unless Values say
	// otherwise.
	Version string
	// Values are those that were given, without the defaults.
	Values manifests.Values
	// Objects are all objects of the mesh, in the order in which they were applied.
	Objects []Ref
	// MadeNamespace tells that the mesh's namespace was not there before.
	MadeNamespace bool
	// Definitions are the CustomResourceDefinitions that meshctl made.
	Definitions []string
}

func (m *Mesh) inventoryRef() Ref {
	return Ref{"v1", "ConfigMap", m.namespace(), inventoryName}
}

// Inventory reads what is installed, nil for nothing.
func (m *Mesh) Inventory(ctx context.Context) (*Inventory, error) {
	o, err := m.live(ctx, m.inventoryRef())
	if err != nil || o == nil {
		return nil, err
	}
	return parseInventory(o)
}

func parseInventory(o *unstructured.Unstructured) (*Inventory, error) {
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	wrong := func(key string, err error) error {
		return fmt.Errorf("%s: data.%s: %w; remove the ConfigMap to install over what is there", refOf(o), key, err)
	}
	if err != nil {
		return nil, wrong("", err)
	}
	inv := &Inventory{Version: data["version"], MadeNamespace: data["madeNamespace"] == "true"}
	if inv.Values, err = manifests.ParseValues([]byte(data["values.yaml"])); err != nil {
		return nil, wrong("values.yaml", err)
	}
	for key, into := range map[string]any{"objects": &inv.Objects, "definitions": &inv.Definitions} {
		if err := json.Unmarshal([]byte(data[key]), into); err != nil {
			return nil, wrong(key, err)
		}
	}
	return inv, nil
}

// object is the ConfigMap.
func (inv *Inventory) object(ref Ref) (*unstructured.Unstructured, error) {
	values, err := yaml.Marshal(inv.Values)
	if err != nil {
		return nil, err
	}
	objects, err := json.MarshalIndent(inv.Objects, "", " ")
	if err != nil {
		return nil, err
	}
	definitions, err := json.Marshal(slices.Compact(slices.Sorted(slices.Values(inv.Definitions))))
	if err != nil {
		return nil, err
	}
	if inv.Definitions == nil {
		definitions = []byte("[]")
	}
	o := ref.object()
	o.SetLabels(map[string]string{partOfLabel: partOf, managedByLabel: "meshctl"})
	o.Object["data"] = map[string]any{
		"version":       inv.Version,
		"values.yaml":   string(values),
		"objects":       string(objects),
		"definitions":   string(definitions),
		"madeNamespace": strconv.FormatBool(inv.MadeNamespace),
	}
	return o, nil
}

// write stores the inventory.
func (m *Mesh) write(ctx context.Context, inv *Inventory) error {
	o, err := inv.object(m.inventoryRef())
	if err != nil {
		return err
	}
	_, err = m.apply(ctx, o, applyOptions{})
	return err
}

// union returns a's objects, then those of b that a has not.
func union(a, b []Ref) []Ref {
	out := slices.Clone(a)
	for _, r := range b {
		if !slices.ContainsFunc(a, func(x Ref) bool { return x.key() == r.key() }) {
			out = append(out, r)
		}
	}
	return out
}

// without returns those of a that b has not.
func without(a, b []Ref) []Ref {
	return slices.DeleteFunc(slices.Clone(a), func(r Ref) bool {
		return slices.ContainsFunc(b, func(x Ref) bool { return x.key() == r.key() })
	})
}
