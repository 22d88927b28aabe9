package install

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Action is what became of an object, or would.
type Action string

// The actions. Kept is for what is somebody else's, and is left as it is.
const (
	Created   Action = "created"
	Changed   Action = "changed"
	Unchanged Action = "unchanged"
	Removed   Action = "removed"
	Kept      Action = "kept"
)

// Change tells what became of one object.
type Change struct {
	Ref
	Action Action `json:"action"`
	// Fields are the changed ones, as PATH: OLD -> NEW, some of them where there are many.
	Fields []string `json:"fields,omitempty"`
	// Note says why, where that is not plain.
	Note string `json:"note,omitempty"`
}

type applyOptions struct {
	// dry asks the server what it would do.
	dry bool
	// force takes fields that others have set.
	force bool
}

// apply writes one object with server-side apply. An object of another mesh, of
// Helm's, or with a field that another manager has set is an error that says whose
// it is.
func (m *Mesh) apply(ctx context.Context, want *unstructured.Unstructured, opt applyOptions) (Change, error) {
	ref := refOf(want)
	change := Change{Ref: ref}
	client, err := m.resource(ref)
	if err != nil {
		return change, err
	}
	before, err := m.live(ctx, ref)
	if err != nil {
		return change, err
	}
	if before != nil {
		if err := mayTake(before); err != nil {
			return change, err
		}
	} else if opt.dry {
		// Its namespace may not be there yet, which the server would refuse.
		change.Action = Created
		return change, nil
	}
	options := metav1.ApplyOptions{FieldManager: FieldManager, Force: opt.force}
	if opt.dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	var after *unstructured.Unstructured
	err = m.retry(ctx, func() (err error) {
		after, err = client.Apply(ctx, ref.Name, want, options)
		return err
	})
	if err != nil {
		return change, m.explainApply(ref, err)
	}
	if before == nil {
		change.Action = Created
		return change, nil
	}
	if change.Fields = differences(before, after); len(change.Fields) > 0 {
		change.Action = Changed
		return change, nil
	}
	change.Action = Unchanged
	return change, nil
}

// retry repeats a request that the API server was too busy for. Applying is the same
// once and twice.
func (m *Mesh) retry(ctx context.Context, request func() error) error {
	for attempt := 1; ; attempt++ {
		err := request()
		busy := apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err)
		if !busy || attempt == maxAttempts {
			return err
		}
		m.say("the API server is busy (%v); trying again", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(attempt) * retryPause):
		}
	}
}

// mayTake refuses an object that is somebody else's. Namespaces, definitions and what
// holds no right of a mesh may be shared.
func mayTake(o *unstructured.Unstructured) error {
	if o.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s is being deleted since %s: wait until it is gone, then try again (kubectl get %s -o yaml shows what it waits for)",
			refOf(o), o.GetDeletionTimestamp().UTC().Format("15:04:05Z"), strings.ToLower(o.GetKind())+"/"+o.GetName())
	}
	if release := o.GetAnnotations()[helmRelease]; release != "" {
		return fmt.Errorf("%s belongs to the Helm release %s: use `helm upgrade %s` and `helm uninstall %s` for this mesh", refOf(o), release, release, release)
	}
	switch o.GetKind() {
	case "Deployment", "DaemonSet", "Service", "ClusterRole":
		if o.GetLabels()[partOfLabel] != partOf {
			return fmt.Errorf("%s is not Tulle's; an Istio control plane has the same names, and a cluster has one of them: uninstall it first", refOf(o))
		}
	}
	return nil
}

// explainApply puts a conflict into words: who has set which field.
func (m *Mesh) explainApply(ref Ref, err error) error {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return fmt.Errorf("apply %s: %w", ref, m.Client.Explain(err))
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, cause.Field+conflictManager(cause.Message))
		}
	}
	if len(fields) == 0 {
		return fmt.Errorf("apply %s: %w", ref, m.Client.Explain(err))
	}
	slices.Sort(fields)
	return fmt.Errorf("%s: somebody else has set %s; take it into the values (--set, -f), or put the mesh's own there with --force-conflicts",
		ref, strings.Join(slices.Compact(fields), ", "))
}

var conflictWith = regexp.MustCompile(`conflict with "([^"]+)"`)

func conflictManager(message string) string {
	if m := conflictWith.FindStringSubmatch(message); m != nil {
		return " (" + m[1] + ")"
	}
	return ""
}
