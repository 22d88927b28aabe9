package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Key names an object within a mesh. Namespace is empty for a Namespace object.
type Key struct{ Kind, Namespace, Name string }

// String has the form that errors use: "Pod shop/web".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Object is one decoded object.
type Object struct {
	Key
	APIVersion string
	// Place is where it was found; its JSON is the object as the user wrote it.
	Place Document
	// Meta is the object's metadata, namespace filled in.
	Meta metav1.ObjectMeta
	// Value is the Kubernetes type (*corev1.Pod, …), or the Istio spec message
	// for Istio's kinds. Nobody may change it.
	Value any
}

// Set is all objects of a mesh, each name once. It is immutable after Parse.
type Set struct {
	objects []*Object
	byKey   map[Key]*Object
}

// Parse decodes documents. All errors are reported together.
func Parse(docs []Document) (*Set, error) {
	s := &Set{byKey: map[Key]*Object{}}
	var errs []error
	for _, d := range docs {
		o, err := decode(d)
		if err != nil {
			errs = append(errs, each(err, func(err error) error { return fmt.Errorf("%s: %w", d.where(), err) }))
			continue
		}
		if old, twice := s.byKey[o.Key]; twice {
			if old.Place.Layer == d.Layer {
				errs = append(errs, fmt.Errorf("%s: %v: already defined in %s", d.where(), o.Key, old.Place.where()))
				continue
			}
			i := slices.Index(s.objects, old)
			s.objects[i] = o // a later layer replaces it, at its place in the order
		} else {
			s.objects = append(s.objects, o)
		}
		s.byKey[o.Key] = o
	}
	if len(errs) == 0 {
		s.addNamespaces()
		errs = append(s.addWaypoints(), s.checkReferences()...)
	}
	return s, errors.Join(errs...)
}

// Objects lists the objects in the order of the files. The slice is shared.
func (s *Set) Objects() []*Object { return s.objects }

// Find returns the object with that name, or nil.
func (s *Set) Find(kind, namespace, name string) *Object {
	return s.byKey[Key{kind, namespace, name}]
}

// OfKind lists the objects of one kind, sorted by namespace and name.
func (s *Set) OfKind(kind string) []*Object {
	var list []*Object
	for _, o := range s.objects {
		if o.Kind == kind {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// RootNamespace holds the objects that are for the whole mesh, as in a cluster the
// namespace in which a mesh is installed.
const RootNamespace = "istio-system"

// addNamespaces declares the namespaces that every cluster with a mesh has.
func (s *Set) addNamespaces() {
	for _, name := range []string{RootNamespace, metav1.NamespaceDefault} {
		key := Key{Kind: "Namespace", Name: name}
		if s.byKey[key] != nil {
			continue
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: key.Name}}
		ns.APIVersion, ns.Kind = "v1", "Namespace"
		o := &Object{Key: key, APIVersion: "v1", Meta: ns.ObjectMeta, Value: ns,
			Place: Document{JSON: []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + name + `"}}`)}}
		s.objects = append([]*Object{o}, s.objects...)
		s.byKey[key] = o
	}
}

// checkReferences refuses what an API server would: objects in namespaces that
// nobody declared, pods of service accounts that nobody declared.
func (s *Set) checkReferences() []error {
	var errs []error
	for _, o := range s.objects {
		at := o.Place.where()
		if o.Namespace != "" && s.Find("Namespace", "", o.Namespace) == nil {
			errs = append(errs, fmt.Errorf("%s: %v: metadata.namespace: namespace %q is not declared: add a Namespace object with that name", at, o.Key, o.Namespace))
			continue
		}
		spec, path := PodSpec(o)
		if spec == nil {
			continue
		}
		account := spec.ServiceAccountName
		if account != "" && account != "default" && s.Find("ServiceAccount", o.Namespace, account) == nil {
			errs = append(errs, fmt.Errorf("%s: %v: %s.serviceAccountName: service account %q is not declared in namespace %q: add a ServiceAccount object with that name", at, o.Key, path, account, o.Namespace))
		}
	}
	return errs
}

// PodSpec returns the pod spec of an object that has one, with its field path.
func PodSpec(o *Object) (*corev1.PodSpec, string) {
	switch v := o.Value.(type) {
	case *corev1.Pod:
		return &v.Spec, "spec"
	case *deployment:
		return &v.Spec.Template.Spec, "spec.template.spec"
	}
	return nil, ""
}
