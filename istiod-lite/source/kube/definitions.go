package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

var definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// defined is what is known of a CustomResourceDefinition.
type defined int

const (
	unknown defined = iota // before the first list
	none
	there
)

// definitions follows which CustomResourceDefinitions there are, by their
// metadata: their schemas are large and of no interest. It is asked, rather than
// the kinds' own addresses, because an API server that has just started answers
// "not found" for kinds that it has yet to learn of.
type definitions struct {
	source *Source
	lister lister
	// whole lists definitions with their versions, which are read only where a kind is
	// defined and not served.
	whole  func(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error)
	health health

	mu      sync.Mutex
	synced  bool
	uids    map[string]types.UID
	changed chan struct{} // closed when uids or synced change
}

func newDefinitions(s *Source, c metadata.Interface, whole dynamic.Interface) *definitions {
	d := &definitions{source: s, uids: map[string]types.UID{}, changed: make(chan struct{}), whole: whole.Resource(definitionResource).List}
	d.lister = lister{
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.Resource(definitionResource).List(ctx, o)
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Resource(definitionResource).Watch(ctx, o)
		},
	}
	return d
}

func (d *definitions) run(ctx context.Context) {
	d.source.follow(ctx, "CustomResourceDefinition", d.lister, &metav1.PartialObjectMetadata{}, d, &d.health, func(error) bool { return false })
}

// state returns what is known of the definition of that name, and a channel that
// is closed when that may have changed.
func (d *definitions) state(name string) (defined, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.synced:
		return unknown, d.changed
	case d.uids[name] == "":
		return none, d.changed
	}
	return there, d.changed
}

// serves asks whether a definition says that its kind is served in a version. One that
// is not established, or never will be, has no objects. It is asked for as a list of one:
// that needs no right but the one to list.
func (d *definitions) serves(ctx context.Context, name, version string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, err := d.whole(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return false, err
	}
	for _, item := range list.Items {
		if !established(item.Object) {
			continue
		}
		versions, _, err := unstructured.NestedSlice(item.Object, "spec", "versions")
		if err != nil {
			return false, err
		}
		for _, v := range versions {
			if m, ok := v.(map[string]any); ok && m["name"] == version && m["served"] == true {
				return true, nil
			}
		}
	}
	return false, nil
}

func established(definition map[string]any) bool {
	conditions, _, _ := unstructured.NestedSlice(definition, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["type"] == "Established" && m["status"] == "True"
	})
}

func (d *definitions) Add(obj any) error    { return d.set(obj, true) }
func (d *definitions) Update(obj any) error { return d.set(obj, true) }
func (d *definitions) Delete(obj any) error { return d.set(obj, false) }

func (d *definitions) set(obj any, present bool) error {
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T is no object", obj)
	}
	uid := o.GetUID()
	if !present {
		uid = ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted(o.GetName()) && d.uids[o.GetName()] != uid {
		d.uids[o.GetName()] = uid
		d.wake()
	}
	return nil
}

func (d *definitions) Replace(list []any, _ string) error {
	uids := map[string]types.UID{}
	for _, obj := range list {
		o, ok := obj.(metav1.Object)
		if !ok {
			return fmt.Errorf("%T is no object", obj)
		}
		if d.wanted(o.GetName()) {
			uids[o.GetName()] = o.GetUID()
		}
	}
	d.health.setSynced(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced, d.uids = true, uids
	d.wake()
	return nil
}

// wanted reports whether the definition is that of a kind which is watched.
func (d *definitions) wanted(name string) bool {
	for _, c := range d.source.collectors {
		if c.kind.crd == name {
			return true
		}
	}
	return false
}

// wake is called with mu held.
func (d *definitions) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Resync does nothing.
func (d *definitions) Resync() error { return nil }

// Transformer has the reflector keep the names while it lists.
func (d *definitions) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if o, ok := obj.(*metav1.PartialObjectMetadata); ok {
			return &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta, ObjectMeta: metav1.ObjectMeta{Name: o.Name, UID: o.UID}}, nil
		}
		return obj, nil
	}
}
