package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

// FieldManager is the name under which the API server keeps what this package wrote.
const FieldManager = "meshctl"

// partOf marks every object of a mesh.
const (
	partOfLabel    = "app.kubernetes.io/part-of"
	partOf         = "tulle"
	managedByLabel = "app.kubernetes.io/managed-by"
	helmRelease    = "meta.helm.sh/release-name"
)

// Mesh is one mesh in one cluster, installed or to be.
type Mesh struct {
	Client *kube.Client
	// Namespace of the mesh, "" means istio-system.
	Namespace string
	// Say is told what happens, a line at a time; nil tells nobody.
	Say func(line string)
}

func (m *Mesh) namespace() string {
	if m.Namespace == "" {
		return manifests.DefaultNamespace
	}
	return m.Namespace
}

func (m *Mesh) say(format string, args ...any) {
	if m.Say != nil {
		m.Say(fmt.Sprintf(format, args...))
	}
}

// Ref names one object.
type Ref struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

func refOf(o *unstructured.Unstructured) Ref {
	return Ref{o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()}
}

// String is how a person names the object: Deployment istio-system/istiod.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// key is the object whatever version of its kind is meant.
func (r Ref) key() string {
	group, _, found := strings.Cut(r.APIVersion, "/")
	if !found {
		group = ""
	}
	return group + " " + r.String()
}

func (r Ref) object() *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(r.APIVersion)
	o.SetKind(r.Kind)
	o.SetNamespace(r.Namespace)
	o.SetName(r.Name)
	return o
}

// resource returns the client for an object's kind and namespace.
func (m *Mesh) resource(r Ref) (dynamic.ResourceInterface, error) {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	if err != nil {
		return nil, err
	}
	gk := schema.GroupKind{Group: gv.Group, Kind: r.Kind}
	mapping, err := m.Client.Mapper.RESTMapping(gk, gv.Version)
	if meta.IsNoMatchError(err) {
		// The kind may be younger than what the mapper has asked.
		meta.MaybeResetRESTMapper(m.Client.Mapper)
		mapping, err = m.Client.Mapper.RESTMapping(gk, gv.Version)
	}
	if err != nil {
		return nil, m.Client.Explain(err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return m.Client.Dynamic.Resource(mapping.Resource).Namespace(r.Namespace), nil
	}
	return m.Client.Dynamic.Resource(mapping.Resource), nil
}

// live returns an object as the cluster has it, nil when it has not.
func (m *Mesh) live(ctx context.Context, r Ref) (*unstructured.Unstructured, error) {
	client, err := m.resource(r)
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o, err := client.Get(ctx, r.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, m.Client.Explain(err)
	}
	return o, nil
}

// remove deletes an object and tells whether it was there.
func (m *Mesh) remove(ctx context.Context, r Ref, propagation metav1.DeletionPropagation) (bool, error) {
	client, err := m.resource(r)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = client.Delete(ctx, r.Name, metav1.DeleteOptions{PropagationPolicy: &propagation})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("remove %s: %w", r, m.Client.Explain(err))
	}
	return true, nil
}

// ErrNotInstalled is what upgrade and uninstall return for a cluster without a mesh
// that meshctl installed.
var ErrNotInstalled = errors.New("no mesh that meshctl installed is in this cluster")
