package install

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// reason is why one pod is not ready.
type reason struct{ pod, text string }

// class is what pods with the same trouble have in common.
func (r reason) class() string {
	class, _, _ := strings.Cut(r.text, ":")
	if class == "ErrImagePull" {
		// A pod goes to and fro between the two.
		return "ImagePullBackOff"
	}
	return class
}

// podReasons tells of each pod of a component that is not ready why.
func (m *Mesh) podReasons(ctx context.Context, w Ref) ([]reason, error) {
	pods, err := m.Client.Kubernetes.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + w.Name, Limit: pageSize})
	if err != nil {
		return nil, m.Client.Explain(err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	var reasons []reason
	asked := 0
	for i := range pods.Items {
		p := &pods.Items[i]
		if podReady(p) && p.DeletionTimestamp == nil {
			continue
		}
		why, ok := podWhy(p)
		if !ok && asked < maxReasons {
			// The pod itself does not say; its events may.
			asked++
			message, err := m.warning(ctx, p.Namespace, "Pod", p.Name, p.UID)
			if err != nil {
				return reasons, err
			}
			if message != "" {
				why = message
			}
		}
		where := p.Name
		if p.Spec.NodeName != "" {
			where += " on " + p.Spec.NodeName
		}
		reasons = append(reasons, reason{where, shorten(why)})
	}
	return reasons, nil
}

// grouped puts pods with the same trouble into one line.
func grouped(reasons []reason) (lines []string) {
	count := make(map[string]int)
	for _, r := range reasons {
		count[r.class()]++
	}
	for _, r := range reasons {
		n := count[r.class()]
		delete(count, r.class())
		switch {
		case n == 0: // told with the first of its class
		case n == 1:
			lines = append(lines, r.pod+": "+r.text)
		default:
			lines = append(lines, fmt.Sprintf("%d pods, such as %s: %s", n, r.pod, r.text))
		}
	}
	return lines
}

// classes lists the kinds of trouble in these conditions of a workload and reasons of
// its pods, each once.
func classes(conditions []string, reasons []reason) []string {
	var list []string
	for _, text := range conditions {
		list = append(list, reason{text: text}.class())
	}
	for _, r := range reasons {
		list = append(list, r.class())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// shorten keeps the beginning, which says what, and the end, which says why.
func shorten(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return text[:maxReason/2] + " … " + text[len(text)-maxReason/2:]
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podWhy reads from a pod's status why it is not ready. ok tells that this is the
// cause; otherwise it is the most that the status says.
func podWhy(p *corev1.Pod) (why string, ok bool) {
	if p.DeletionTimestamp != nil {
		return "ending", true
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "not scheduled: " + c.Message, true
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		switch {
		case c.Ready:
		case c.State.Waiting != nil:
			w := c.State.Waiting
			if w.Reason == "CrashLoopBackOff" && c.LastTerminationState.Terminated != nil {
				return fmt.Sprintf("ends again and again (%s); `kubectl -n %s logs %s` says why", ended(c.LastTerminationState.Terminated), p.Namespace, p.Name), true
			}
			switch w.Reason {
			case "ContainerCreating", "PodInitializing", "":
				return "starting", false
			}
			text := w.Reason
			if w.Message != "" {
				text += ": " + firstLine(w.Message)
			}
			return text, true
		case c.State.Terminated != nil:
			return ended(c.State.Terminated), true
		case c.State.Running != nil:
			return "runs, and is not ready", false
		}
	}
	if p.Status.Phase == corev1.PodFailed {
		return strings.TrimSpace("failed " + p.Status.Reason + " " + p.Status.Message), true
	}
	return "starting", false
}

func ended(t *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("exit status %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		text += ", " + t.Reason
	}
	if t.Message != "" {
		// The message is the end of the log, and the last line says why.
		lines := strings.Split(strings.TrimSpace(t.Message), "\n")
		text += ": " + lines[len(lines)-1]
	}
	return text
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// warning returns the newest warning among an object's events, "" when there is none
// or events may not be read.
func (m *Mesh) warning(ctx context.Context, namespace, kind, name string, uid types.UID) (string, error) {
	selector := fields.Set{"involvedObject.kind": kind, "involvedObject.name": name, "involvedObject.uid": string(uid), "type": corev1.EventTypeWarning}
	events, err := m.Client.Kubernetes.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: selector.String(), Limit: eventsPerPod})
	switch {
	case apierrors.IsForbidden(err):
		return "", nil
	case err != nil:
		return "", m.Client.Explain(err)
	case len(events.Items) == 0:
		return "", nil
	}
	newest := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	return fmt.Sprintf("%s: %s", newest.Reason, firstLine(newest.Message)), nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func eventTime(e corev1.Event) time.Time {
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}
