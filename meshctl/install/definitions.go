package install

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/tulle-mesh/tulle/manifests"
)

// bundleAnnotations say which release a definition is from.
var bundleAnnotations = []string{"gateway.networking.k8s.io/bundle-version", manifests.BundleVersion}

const channelAnnotation = "gateway.networking.k8s.io/channel"

// decoded is what manifests holds: a megabyte of YAML.
var decoded = sync.OnceValues(func() ([]*unstructured.Unstructured, error) {
	var list []*unstructured.Unstructured
	for _, data := range manifests.CRDs() {
		objects, err := manifests.Decode(data)
		if err != nil {
			return nil, err
		}
		list = append(list, objects...)
	}
	return list, nil
})

// definitions returns copies of those of manifests.
func definitions() ([]*unstructured.Unstructured, error) {
	list, err := decoded()
	if err != nil {
		return nil, err
	}
	copies := make([]*unstructured.Unstructured, len(list))
	for i, d := range list {
		copies[i] = d.DeepCopy()
	}
	return copies, nil
}

// needed are the definitions without which istiod does not start; the others are
// there because a part of the Gateway API looks like a broken installation.
var needed = []string{
	"gateways.gateway.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io",
	"grpcroutes.gateway.networking.k8s.io", "authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io",
	"serviceentries.networking.istio.io", "workloadentries.networking.istio.io",
}

// neededVersion is the version of each that istiod reads.
const neededVersion = "v1"

// applyDefinitions makes the kinds that the mesh reads. A definition that somebody
// else made, or of a newer release, stays as it is: others in the cluster may need it
// so. It returns the names of those that are meshctl's.
func (m *Mesh) applyDefinitions(ctx context.Context, dry bool) (changes []Change, ours []string, err error) {
	list, err := definitions()
	if err != nil {
		return nil, nil, err
	}
	live := make(map[string]*unstructured.Unstructured)
	foreign := make(map[string]bool) // by group
	for _, want := range list {
		o, err := m.live(ctx, refOf(want))
		if err != nil {
			return nil, nil, err
		}
		if o != nil {
			live[want.GetName()] = o
			foreign[group(want)] = foreign[group(want)] || !managedByUs(o)
		}
		// Before anything is made.
		if keepDefinition(o, want) != "" && slices.Contains(needed, want.GetName()) && !slices.Contains(served(o), neededVersion) {
			return nil, nil, fmt.Errorf("%s is somebody else's and does not serve %s, which the mesh needs: update it to %s or later",
				refOf(want), neededVersion, bundle(want))
		}
	}
	made := false
	for _, want := range list {
		name := want.GetName()
		has := live[name]
		change := Change{Ref: refOf(want), Action: Kept, Note: keepDefinition(has, want)}
		switch {
		case has == nil && foreign[group(want)] && !slices.Contains(needed, name):
			change.Note = "left out: the other kinds of " + group(want) + " are somebody else's"
		case change.Note != "":
		case has != nil && managedByUs(has) && covers(has.Object, want.Object):
			// Applying a definition takes the API server seconds, changed or not.
			change.Action = Unchanged
		default:
			// What is ours is taken back whole, whoever has edited it.
			if change, err = m.apply(ctx, want, applyOptions{dry: dry, force: has != nil}); err != nil {
				return changes, ours, err
			}
			made = made || change.Action == Created
		}
		changes = append(changes, change)
		if change.Action != Kept || has != nil && managedByUs(has) {
			ours = append(ours, name)
		}
	}
	if dry || !made {
		return changes, ours, nil
	}
	return changes, ours, m.awaitEstablished(ctx, changes)
}

// covers tells whether live has everything that want asks for, with what the API
// server adds beside it.
func covers(live, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		has, ok := live.(map[string]any)
		if !ok {
			return false
		}
		for key, w := range want {
			if h, ok := has[key]; !ok || !covers(h, w) {
				return false
			}
		}
		return true
	case []any:
		has, ok := live.([]any)
		if !ok || len(has) != len(want) {
			return false
		}
		for i, w := range want {
			if !covers(has[i], w) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(live, want)
	}
}

func group(definition *unstructured.Unstructured) string {
	g, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	return g
}

// keepDefinition says why a live definition stays as it is, "" when it does not.
func keepDefinition(live, want *unstructured.Unstructured) string {
	if live == nil {
		return ""
	}
	has, brings := bundle(live), bundle(want)
	if newer(has, brings) {
		return fmt.Sprintf("%s is newer than %s", has, brings)
	}
	if channel := live.GetAnnotations()[channelAnnotation]; channel != want.GetAnnotations()[channelAnnotation] && channel != "" {
		return "of the channel " + channel
	}
	if managedByUs(live) {
		return ""
	}
	if has == brings {
		return "already there"
	}
	if has == "" {
		return "already there, of an unknown release"
	}
	return fmt.Sprintf("already there, of release %s", has)
}

func bundle(o *unstructured.Unstructured) string {
	for _, a := range bundleAnnotations {
		if v := o.GetAnnotations()[a]; v != "" {
			return v
		}
	}
	return ""
}

func newer(a, b string) bool {
	va, err := version.ParseSemantic(a)
	if err != nil {
		return false
	}
	vb, err := version.ParseSemantic(b)
	return err == nil && vb.LessThan(va)
}

// managedByUs tells whether meshctl wrote the object.
func managedByUs(o *unstructured.Unstructured) bool {
	return managedBy(o, FieldManager)
}

func managedBy(o *unstructured.Unstructured, manager string) bool {
	for _, f := range o.GetManagedFields() {
		if f.Manager == manager {
			return true
		}
	}
	return false
}

// served lists the versions that the API server offers of a definition.
func served(o *unstructured.Unstructured) []string {
	list, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
	var names []string
	for _, item := range list {
		v, _ := item.(map[string]any)
		if on, _ := v["served"].(bool); on {
			name, _ := v["name"].(string)
			names = append(names, name)
		}
	}
	return names
}

// awaitEstablished waits until the API server serves the kinds.
func (m *Mesh) awaitEstablished(ctx context.Context, changes []Change) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	for _, c := range changes {
		if c.Action != Created {
			continue
		}
		for {
			live, err := m.live(ctx, c.Ref)
			if err != nil {
				return err
			}
			if live != nil && condition(live, "Established") == "True" {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s was made, but the API server does not serve it after %v: `kubectl describe crd %s` says why",
					c.Ref, establishTimeout, c.Name)
			case <-time.After(pollInterval / 5):
			}
		}
	}
	meta.MaybeResetRESTMapper(m.Client.Mapper)
	return nil
}

// condition returns the status of one of an object's conditions, "" without it.
func condition(o *unstructured.Unstructured, kind string) string {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, item := range list {
		if c, _ := item.(map[string]any); c["type"] == kind {
			status, _ := c["status"].(string)
			return status
		}
	}
	return ""
}
