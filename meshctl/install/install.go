package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/tulle-mesh/tulle/manifests"
)

// Options say what to install, and how.
type Options struct {
	// Version is meshctl's own, and the tag of the images unless Values name another.
	Version string
	// Values stand in the place of the chart's defaults; nil changes none.
	Values manifests.Values
	// DryRun asks the API server what would change, and changes nothing.
	DryRun bool
	// ForceConflicts takes fields that somebody else has set.
	ForceConflicts bool
	// Wait is how long the components may take to be ready; zero does not wait.
	Wait time.Duration
	// Force goes on where the versions do not fit. Upgrade only.
	Force bool
}

// Report tells what was done.
type Report struct {
	Version string `json:"version"`
	// From is the version that was there before, empty for a first installation.
	From    string   `json:"from,omitempty"`
	DryRun  bool     `json:"dryRun,omitempty"`
	Changes []Change `json:"changes"`
	// Components are as they were seen last; none when nobody waited.
	Components []Component `json:"components,omitempty"`
}

// Same tells that the cluster was as it should be already.
func (r *Report) Same() bool {
	return !slices.ContainsFunc(r.Changes, func(c Change) bool { return c.Action != Unchanged && c.Action != Kept })
}

// Install makes the mesh as the options say: what is new is created, what differs is
// changed, what an earlier installation had and this one has not is removed. Doing it
// twice changes nothing. Another version than the installed one is refused, since
// [Mesh.Upgrade] knows in which order. On an error the report tells how far it came.
func (m *Mesh) Install(ctx context.Context, opt Options) (*Report, error) {
	inv, err := m.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	if inv != nil && inv.Version != opt.Version {
		return nil, fmt.Errorf("version %s is installed, and this meshctl is %s: use `meshctl upgrade`", inv.Version, opt.Version)
	}
	report, err := m.make(ctx, inv, opt, false)
	return report, interrupted(ctx, err)
}

// interrupted says of an error that the caller ended the work, and how to go on.
func interrupted(ctx context.Context, err error) error {
	if !errors.Is(err, context.Canceled) || !errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	return fmt.Errorf("interrupted; what was applied stays, and the same command goes on from there (%w)", err)
}

// make applies everything; stepwise waits for each component before the next.
func (m *Mesh) make(ctx context.Context, inv *Inventory, opt Options, stepwise bool) (*Report, error) {
	report := &Report{Version: opt.Version, DryRun: opt.DryRun}
	if inv != nil {
		report.From = inv.Version
	}
	objects, err := render(opt, m.namespace())
	if err != nil {
		return report, err
	}
	changes, definitions, err := m.applyDefinitions(ctx, opt.DryRun)
	report.Changes = changes
	if err != nil {
		return report, err
	}
	if n := counted(changes, Created); n > 0 && !opt.DryRun {
		m.say("%d CustomResourceDefinitions created", n)
	}
	if n := counted(changes, Changed); n > 0 && !opt.DryRun {
		m.say("%d CustomResourceDefinitions changed", n)
	}
	next := &Inventory{Version: opt.Version, Values: opt.Values, Definitions: definitions}
	for _, o := range objects {
		next.Objects = append(next.Objects, refOf(o))
	}
	var gone []Ref
	if inv != nil {
		next.MadeNamespace = inv.MadeNamespace
		next.Definitions = append(next.Definitions, inv.Definitions...)
		gone = without(inv.Objects, next.Objects)
	}
	applying := applyOptions{dry: opt.DryRun, force: opt.ForceConflicts}
	remembered := opt.DryRun
	for _, o := range objects {
		// The namespace comes first, then what is about to be made is written down, so
		// that an installation that breaks off can be taken out.
		if o.GetKind() != "Namespace" && !remembered {
			if err := m.write(ctx, begun(inv, next)); err != nil {
				return report, err
			}
			remembered = true
		}
		change, err := m.apply(ctx, o, applying)
		if err != nil {
			return report, err
		}
		report.Changes = append(report.Changes, change)
		if o.GetKind() == "Namespace" && change.Action == Created {
			next.MadeNamespace = true
		}
		if change.Action != Unchanged && !opt.DryRun {
			m.say("%s %s", change.Ref, change.Action)
		}
		if stepwise && !opt.DryRun && opt.Wait > 0 && isWorkload(o) {
			list, err := m.await(ctx, []string{o.GetName()}, opt.Wait)
			report.Components = append(report.Components, list...)
			if err != nil {
				return report, err
			}
		}
	}
	for _, r := range gone {
		change, err := m.prune(ctx, r, opt.DryRun)
		if err != nil {
			return report, err
		}
		if change.Action == Removed {
			report.Changes = append(report.Changes, change)
		}
	}
	if opt.DryRun {
		return report, nil
	}
	if err := m.write(ctx, next); err != nil {
		return report, err
	}
	if opt.Wait > 0 && !stepwise {
		report.Components, err = m.await(ctx, names(workloads), opt.Wait)
	}
	return report, err
}

func counted(changes []Change, action Action) int {
	n := 0
	for _, c := range changes {
		if c.Action == action {
			n++
		}
	}
	return n
}

// render gives the mesh's objects for the options.
func render(opt Options, namespace string) ([]*unstructured.Unstructured, error) {
	defaults, err := manifests.Default()
	if err != nil {
		return nil, err
	}
	objects, err := manifests.Render(manifests.Release{Namespace: namespace, Version: opt.Version}, manifests.Merge(defaults, opt.Values))
	if err != nil {
		return nil, fmt.Errorf("values:\n  %s", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	}
	inUpgradeOrder(objects)
	return objects, nil
}

// Objects are what Install would apply for a cluster that has nothing: the definitions,
// then the mesh. No cluster is asked.
func Objects(opt Options, namespace string) ([]*unstructured.Unstructured, error) {
	list, err := definitions()
	if err != nil {
		return nil, err
	}
	objects, err := render(opt, namespace)
	return append(list, objects...), err
}

// begun is the inventory of an installation under way: everything that the last one
// had and that this one will have.
func begun(before, next *Inventory) *Inventory {
	if before == nil {
		return next
	}
	during := *next
	during.Version, during.Values = before.Version, before.Values
	during.Objects = union(before.Objects, next.Objects)
	return &during
}

// prune removes an object that an earlier version had.
func (m *Mesh) prune(ctx context.Context, r Ref, dry bool) (Change, error) {
	change := Change{Ref: r, Action: Kept}
	live, err := m.live(ctx, r)
	if err != nil || live == nil {
		return change, err
	}
	if live.GetLabels()[partOfLabel] != partOf || r.Kind == "Namespace" {
		return change, nil
	}
	change.Action, change.Note = Removed, "an earlier version had it"
	if dry {
		return change, nil
	}
	if _, err := m.remove(ctx, r, metav1.DeletePropagationBackground); err != nil {
		return change, err
	}
	m.say("%s removed", r)
	return change, nil
}

func isWorkload(o *unstructured.Unstructured) bool {
	return slices.ContainsFunc(workloads, func(w Ref) bool { return w.Kind == o.GetKind() && w.Name == o.GetName() })
}

// inUpgradeOrder sorts the workloads, which come last, as [workloads] has them.
func inUpgradeOrder(objects []*unstructured.Unstructured) {
	place := func(o *unstructured.Unstructured) int {
		return slices.IndexFunc(workloads, func(w Ref) bool { return w.Kind == o.GetKind() && w.Name == o.GetName() })
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return place(a) - place(b) })
}

func names(refs []Ref) []string {
	var list []string
	for _, r := range refs {
		list = append(list, r.Name)
	}
	return list
}

// ErrVersions is behind every refusal of an upgrade for the versions' sake.
var ErrVersions = errors.New("versions do not fit")

// tag is what stands behind an image's name.
func tag(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	_, tag, _ := strings.Cut(name, ":")
	tag, _, _ = strings.Cut(tag, "@")
	return tag
}
