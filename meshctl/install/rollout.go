package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Component is the state of one of the mesh's workloads.
type Component struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Ready of Wanted pods run the newest template and are ready; Done tells that
	// nothing of an older one is left either.
	Ready  int  `json:"ready"`
	Wanted int  `json:"wanted"`
	Done   bool `json:"done"`
	// Image is what its pods run, by the template.
	Image string `json:"image"`
	// Reasons say what it waits for; pods with the same trouble share one.
	Reasons []string `json:"reasons,omitempty"`
	// troubles are the classes of its reasons.
	troubles []string
}

func (c Component) line() string {
	text := fmt.Sprintf("%s: %d/%d ready", c.Name, c.Ready, c.Wanted)
	if c.Done {
		return text
	}
	if len(c.Reasons) == 0 {
		return text + ", rolling out"
	}
	return text + "\n  " + strings.Join(c.Reasons, "\n  ")
}

// workloads are the mesh's components, in the order in which an upgrade takes them:
// a control plane understands older proxies, and not the other way round.
var workloads = []Ref{
	{"apps/v1", "Deployment", "", "istiod"},
	{"apps/v1", "DaemonSet", "", "tulle-agent"},
	{"apps/v1", "DaemonSet", "", "ztunnel"},
}

// Components reads the state of all components; one that is not there has no image.
func (m *Mesh) Components(ctx context.Context) ([]Component, error) {
	var list []Component
	for _, w := range workloads {
		c, err := m.component(ctx, w)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func (m *Mesh) component(ctx context.Context, w Ref) (Component, error) {
	c := Component{Name: w.Name, Kind: w.Kind}
	w.Namespace = m.namespace()
	apps := m.Client.Kubernetes.AppsV1()
	var conditions []string
	switch w.Kind {
	case "Deployment":
		d, err := apps.Deployments(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return c, m.absent(w, err)
		}
		c.Image = image(d.Spec.Template)
		c.Wanted = 1
		if d.Spec.Replicas != nil {
			c.Wanted = int(*d.Spec.Replicas)
		}
		c.Ready = int(min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas))
		c.Done = d.Status.ObservedGeneration >= d.Generation && c.Ready == c.Wanted && int(d.Status.Replicas) == c.Wanted
		for _, cond := range d.Status.Conditions {
			if cond.Type == appsv1.DeploymentReplicaFailure && cond.Status == corev1.ConditionTrue {
				conditions = append(conditions, cond.Message)
			}
		}
	default:
		d, err := apps.DaemonSets(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil {
			return c, m.absent(w, err)
		}
		c.Image = image(d.Spec.Template)
		s := d.Status
		c.Wanted = int(s.DesiredNumberScheduled)
		c.Ready = int(min(s.UpdatedNumberScheduled, s.NumberAvailable))
		observed := s.ObservedGeneration >= d.Generation
		c.Done = observed && c.Ready == c.Wanted && c.Wanted > 0
		if observed && c.Wanted == 0 {
			conditions = append(conditions, "no node suits it: its nodeSelector asks for "+labelText(d.Spec.Template.Spec.NodeSelector))
		}
		if !c.Done && len(conditions) == 0 {
			message, err := m.warning(ctx, w.Namespace, "DaemonSet", w.Name, d.UID)
			if err != nil {
				return c, err
			}
			if message != "" && int(s.CurrentNumberScheduled) < c.Wanted {
				conditions = append(conditions, message)
			}
		}
	}
	if c.Done {
		return c, nil
	}
	reasons, err := m.podReasons(ctx, w)
	c.Reasons = append(conditions, grouped(reasons)...)
	c.troubles = classes(conditions, reasons)
	return c, err
}

// absent turns a workload that is not there into an empty component.
func (m *Mesh) absent(w Ref, err error) error {
	if ignoreNotFound(err) == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", w, m.Client.Explain(err))
}

func image(t corev1.PodTemplateSpec) string {
	if len(t.Spec.Containers) == 0 {
		return ""
	}
	return t.Spec.Containers[0].Image
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "nothing, and there is no node"
	}
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// await waits until the named components are rolled out, and tells what changes
// meanwhile. When time is over, or the caller gives up, the error says what each
// waits for.
func (m *Mesh) await(caller context.Context, names []string, limit time.Duration) ([]Component, error) {
	ctx, cancel := context.WithTimeout(caller, limit)
	defer cancel()
	said, failure := make(news), ""
	var last []Component
	for {
		list, err := m.Components(ctx)
		if err == nil {
			last = slices.DeleteFunc(list, func(c Component) bool { return !slices.Contains(names, c.Name) })
			done := true
			for _, c := range last {
				if line := said.of(c, time.Now()); line != "" {
					m.say("%s", line)
				}
				done = done && c.Done
			}
			if done {
				return last, nil
			}
		}
		select {
		case <-ctx.Done():
			how := fmt.Sprintf("not ready after %v", limit)
			if errors.Is(caller.Err(), context.Canceled) {
				how = "interrupted, and not ready yet"
			}
			return last, m.unready(how, last, err)
		case <-time.After(pollInterval):
		}
		if err != nil && ctx.Err() == nil && failure != err.Error() {
			failure = err.Error()
			m.say("%v; trying again", err)
		}
	}
}

func (m *Mesh) unready(how string, list []Component, err error) error {
	var lines []string
	for _, c := range list {
		if !c.Done {
			lines = append(lines, c.line())
		}
	}
	if err != nil && len(lines) == 0 {
		lines = append(lines, err.Error())
	}
	return fmt.Errorf("%s:\n%s\n`kubectl -n %s describe pods` and `kubectl -n %s logs` tell more; what was applied stays, and the same command goes on from there",
		how, strings.Join(lines, "\n"), m.namespace(), m.namespace())
}
