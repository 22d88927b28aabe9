package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tulle-mesh/tulle/manifests"
)

// Names of what istiod and the agents make themselves.
const (
	rootConfigMap = "istio-ca-root-cert"
	caSecret      = "istio-ca-secret"
	leaderLease   = "istiod-lite-leader"
	istiodManager = "istiod-lite"
	modeLabel     = "istio.io/dataplane-mode"
)

// UninstallOptions say what goes.
type UninstallOptions struct {
	// Definitions takes away the kinds that meshctl made too, unless objects of them are
	// left that no longer mean anything.
	Definitions bool
	// Force takes away definitions with all objects of theirs, and goes on when an agent
	// does not end.
	Force bool
	// Purge takes away the authority's key too, and the namespace when nothing of others
	// is in it. A mesh that is installed again has another root then.
	Purge bool
	// DryRun changes nothing.
	DryRun bool
	// Wait is how long the agents may take to release their pods.
	Wait time.Duration
}

// Uninstall takes the mesh out: the agents first, which release their pods and clean
// their nodes while proxies still serve, then the proxies and the control plane,
// then what they had and made.
func (m *Mesh) Uninstall(ctx context.Context, opt UninstallOptions) (*Report, error) {
	inv, err := m.installed(ctx)
	if err != nil {
		return nil, err
	}
	u := &uninstall{Mesh: m, opt: opt, report: &Report{Version: inv.Version, DryRun: opt.DryRun}}
	if opt.Definitions {
		if err := u.mayRemoveDefinitions(ctx, inv.Definitions); err != nil {
			return u.report, err
		}
	}
	return u.report, u.run(ctx, inv)
}

// Installed tells whether there is something to uninstall.
func (m *Mesh) Installed(ctx context.Context) (bool, error) {
	_, err := m.installed(ctx)
	if errors.Is(err, ErrNotInstalled) {
		return false, nil
	}
	return err == nil, err
}

func (m *Mesh) installed(ctx context.Context) (*Inventory, error) {
	inv, err := m.Inventory(ctx)
	if err != nil || inv != nil {
		return inv, err
	}
	return m.remains(ctx)
}

// remains finds what is there of a mesh whose inventory is lost.
func (m *Mesh) remains(ctx context.Context) (*Inventory, error) {
	objects, err := render(Options{}, m.namespace())
	if err != nil {
		return nil, err
	}
	inv := &Inventory{}
	for _, o := range objects {
		if o.GetKind() == "Namespace" { // it stays when a mesh goes
			continue
		}
		live, err := m.live(ctx, refOf(o))
		if err != nil {
			return nil, err
		}
		if live == nil || live.GetLabels()[partOfLabel] != partOf {
			continue
		}
		if release := live.GetAnnotations()[helmRelease]; release != "" {
			return nil, fmt.Errorf("%w: %s belongs to the Helm release %s; use `helm uninstall %s`", ErrNotInstalled, refOf(live), release, release)
		}
		inv.Objects = append(inv.Objects, refOf(o))
	}
	if len(inv.Objects) == 0 {
		return nil, ErrNotInstalled
	}
	return inv, nil
}

type uninstall struct {
	*Mesh
	opt    UninstallOptions
	report *Report
}

func (u *uninstall) run(ctx context.Context, inv *Inventory) error {
	// An upgrade's order backwards would end the control plane last; proxies outlive
	// it, but agents must not outlive proxies: pods would be captured by nobody.
	for _, name := range []string{"tulle-agent", "ztunnel", "istiod"} {
		i := slices.IndexFunc(inv.Objects, func(r Ref) bool { return r.Name == name && (r.Kind == "DaemonSet" || r.Kind == "Deployment") })
		if i < 0 {
			continue
		}
		if err := u.removeWorkload(ctx, inv.Objects[i]); err != nil {
			return err
		}
	}
	if err := u.removeWaypoints(ctx); err != nil {
		return err
	}
	if err := u.removeRoots(ctx); err != nil {
		return err
	}
	for _, r := range slices.Backward(inv.Objects) {
		if r.Kind == "Namespace" {
			continue
		}
		if err := u.take(ctx, r, metav1.DeletePropagationBackground); err != nil {
			return err
		}
	}
	if err := u.take(ctx, Ref{"coordination.k8s.io/v1", "Lease", u.namespace(), leaderLease}, metav1.DeletePropagationBackground); err != nil {
		return err
	}
	if u.opt.Definitions {
		for _, name := range inv.Definitions {
			if err := u.take(ctx, definitionRef(name), metav1.DeletePropagationBackground); err != nil {
				return err
			}
		}
	}
	return u.removeRest(ctx, inv)
}

// removeRest takes the key, the inventory and the namespace, as far as they may go.
func (u *uninstall) removeRest(ctx context.Context, inv *Inventory) error {
	secret := Ref{"v1", "Secret", u.namespace(), caSecret}
	if u.opt.Purge {
		if err := u.take(ctx, secret, metav1.DeletePropagationBackground); err != nil {
			return err
		}
	} else if live, err := u.live(ctx, secret); err != nil {
		return err
	} else if live != nil {
		u.report.Changes = append(u.report.Changes, Change{Ref: secret, Action: Kept, Note: "the authority's key, for a mesh installed again; --purge removes it"})
	}
	if left := keptDefinitions(inv, u.opt); len(left) > 0 {
		u.report.Changes = append(u.report.Changes, left...)
	}
	if err := u.take(ctx, u.inventoryRef(), metav1.DeletePropagationBackground); err != nil {
		return err
	}
	namespace := Ref{"v1", "Namespace", "", u.namespace()}
	if !u.opt.Purge {
		u.report.Changes = append(u.report.Changes, Change{Ref: namespace, Action: Kept, Note: "--purge removes it"})
		return nil
	}
	if !inv.MadeNamespace {
		u.report.Changes = append(u.report.Changes, Change{Ref: namespace, Action: Kept, Note: "it was there before the mesh"})
		return nil
	}
	if !u.opt.DryRun {
		if others, err := u.othersIn(ctx); err != nil {
			return err
		} else if len(others) > 0 {
			u.report.Changes = append(u.report.Changes, Change{Ref: namespace, Action: Kept, Note: "others are in it: " + strings.Join(others, ", ")})
			return nil
		}
	}
	return u.take(ctx, namespace, metav1.DeletePropagationBackground)
}

func keptDefinitions(inv *Inventory, opt UninstallOptions) []Change {
	if opt.Definitions || len(inv.Definitions) == 0 {
		return nil
	}
	return []Change{{Ref: definitionRef(fmt.Sprintf("(%d)", len(inv.Definitions))), Action: Kept, Note: "with them every object of their kinds would go; --crds removes them"}}
}

// take removes one object and notes it.
func (u *uninstall) take(ctx context.Context, r Ref, how metav1.DeletionPropagation) error {
	if u.opt.DryRun {
		if slices.ContainsFunc(u.report.Changes, func(c Change) bool { return c.Ref == r && c.Action == Removed }) {
			return nil // a component, which goes before the rest of the objects
		}
		live, err := u.live(ctx, r)
		if err == nil && live != nil {
			u.report.Changes = append(u.report.Changes, Change{Ref: r, Action: Removed})
		}
		return err
	}
	was, err := u.remove(ctx, r, how)
	if err != nil || !was {
		return err
	}
	u.report.Changes = append(u.report.Changes, Change{Ref: r, Action: Removed})
	u.say("%s removed", r)
	return nil
}

// removeWorkload deletes a component and waits until its pods are gone. The DaemonSet
// stays until then (foreground), and by that the agents know that they shall clean
// up instead of waiting for their successor.
func (u *uninstall) removeWorkload(ctx context.Context, r Ref) error {
	if err := u.take(ctx, r, metav1.DeletePropagationForeground); err != nil || u.opt.DryRun {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.opt.Wait)
	defer cancel()
	said := -1
	for {
		pods, err := u.Client.Kubernetes.CoreV1().Pods(u.namespace()).List(ctx, metav1.ListOptions{LabelSelector: "app=" + r.Name, Limit: pageSize})
		if err == nil {
			if len(pods.Items) == 0 {
				live, err := u.live(ctx, r)
				if err != nil || live == nil {
					return err
				}
			} else if len(pods.Items) != said {
				said = len(pods.Items)
				u.say("%s: %d pods end", r.Name, said)
			}
		} else if ctx.Err() == nil {
			return u.Client.Explain(err)
		}
		select {
		case <-ctx.Done():
			if u.opt.Force {
				u.say("%s: pods do not end; going on", r.Name)
				return nil
			}
			return fmt.Errorf("%s: its pods did not end within %v%s", r, u.opt.Wait, u.stuck(pods, r.Name))
		case <-time.After(pollInterval):
		}
	}
}

// stuck names the nodes whose pods do not end, and what to do there.
func (u *uninstall) stuck(pods *corev1.PodList, component string) string {
	if pods == nil || len(pods.Items) == 0 {
		return ""
	}
	var nodes []string
	for _, p := range pods.Items {
		nodes = append(nodes, p.Spec.NodeName)
	}
	slices.Sort(nodes)
	text := fmt.Sprintf(" on %s; are these nodes ready? `meshctl uninstall` goes on when they are back, and --force goes on without them", strings.Join(slices.Compact(nodes), ", "))
	if component == "tulle-agent" {
		text += " (on such a node, `/opt/cni/bin/tulle-cni clean` removes what the agent left)"
	}
	return text
}

// removeRoots takes the root certificates that istiod wrote into every namespace. A
// ConfigMap of that name that another control plane writes stays.
func (u *uninstall) removeRoots(ctx context.Context) error {
	list, err := u.Client.Kubernetes.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", rootConfigMap).String(), Limit: 0})
	if err != nil {
		return u.Client.Explain(err)
	}
	removed := 0
	for i := range list.Items {
		c := &list.Items[i]
		if !slices.ContainsFunc(c.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == istiodManager }) {
			continue
		}
		removed++
		if u.opt.DryRun {
			continue
		}
		err := u.Client.Kubernetes.CoreV1().ConfigMaps(c.Namespace).Delete(ctx, c.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove ConfigMap %s/%s: %w", c.Namespace, c.Name, u.Client.Explain(err))
		}
	}
	if removed > 0 {
		u.report.Changes = append(u.report.Changes, Change{Ref: Ref{"v1", "ConfigMap", "*", rootConfigMap}, Action: Removed, Note: fmt.Sprintf("in %d namespaces", removed)})
		if !u.opt.DryRun {
			u.say("ConfigMap %s removed in %d namespaces", rootConfigMap, removed)
		}
	}
	return nil
}

// othersIn lists what is in the mesh's namespace and not the mesh's, some of it.
func (u *uninstall) othersIn(ctx context.Context) ([]string, error) {
	var found []string
	for _, kind := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "Pod"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "Secret"},
		{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "PersistentVolumeClaim"}, {Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "StatefulSet"}, {Group: "apps", Version: "v1", Kind: "DaemonSet"},
	} {
		client, err := u.resource(Ref{kind.GroupVersion().String(), kind.Kind, u.namespace(), ""})
		if err != nil {
			return nil, err
		}
		list, err := client.List(ctx, metav1.ListOptions{Limit: pageSize})
		if err != nil {
			return nil, u.Client.Explain(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetDeletionTimestamp() == nil && o.GetLabels()[partOfLabel] != partOf && o.GetName() != "kube-root-ca.crt" && len(found) < maxReasons {
				found = append(found, o.GetKind()+" "+o.GetName())
			}
		}
	}
	return found, nil
}

func definitionRef(name string) Ref {
	return Ref{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "", name}
}

// mayRemoveDefinitions refuses to take away kinds of which there are objects: they would
// go with them, those of other programs too.
func (u *uninstall) mayRemoveDefinitions(ctx context.Context, names []string) error {
	if u.opt.Force {
		return nil
	}
	var left []string
	for _, name := range names {
		live, err := u.live(ctx, definitionRef(name))
		if err != nil {
			return err
		}
		if live == nil {
			continue
		}
		n, err := u.count(ctx, live)
		if err != nil {
			return err
		}
		if n > 0 {
			left = append(left, fmt.Sprintf("%s (%d)", name, n))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("--crds: there are objects of %s, which would go with their definitions: remove them first, leave --crds out, or add --force", strings.Join(left, ", "))
	}
	return nil
}

// count tells how many objects of a defined kind there are, of the first page.
func (u *uninstall) count(ctx context.Context, definition *unstructured.Unstructured) (int, error) {
	versions := served(definition)
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	if len(versions) == 0 || kind == "" {
		return 0, nil
	}
	resource := schema.GroupVersionResource{Group: group(definition), Version: versions[0], Resource: kind}
	list, err := u.Client.Dynamic.Resource(resource).List(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return 0, u.Client.Explain(err)
	}
	return len(slices.DeleteFunc(list.Items, func(o unstructured.Unstructured) bool {
		return o.GetLabels()[managedByLabel] == istiodManager && o.GetLabels()[partOfLabel] == partOf // istiod made it, and it goes in any case
	})), nil
}

// Namespaces lists the namespaces whose pods belong to the mesh, for the question that
// comes before an uninstallation.
func (m *Mesh) Namespaces(ctx context.Context) ([]string, error) {
	list, err := m.Client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: modeLabel + "=ambient"})
	if err != nil {
		return nil, m.Client.Explain(err)
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names, nil
}

// DefaultNamespace is where a mesh is unless told otherwise.
const DefaultNamespace = manifests.DefaultNamespace
