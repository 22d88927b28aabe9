package suite_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// modeLabel puts a namespace or a pod into the mesh.
const modeLabel = "istio.io/dataplane-mode"

// space is one test's namespace.
type space struct {
	t    *testing.T
	name string
	// marker is the secret that its pods send with everything.
	marker string
	begun  time.Time
}

// enrolled makes a namespace whose pods are in the mesh. Its secret must never be
// seen between the nodes.
func enrolled(t *testing.T, name string) *space {
	return newSpace(t, name, map[string]string{modeLabel: "ambient"}, capture.secret)
}

// outside makes a namespace whose pods are not in the mesh. What they send is seen.
func outside(t *testing.T, name string) *space { return newSpace(t, name, nil, capture.public) }

func newSpace(t *testing.T, name string, labels map[string]string, marker string) *space {
	t.Helper()
	s := &space{t: t, name: "e2e-" + name, marker: marker, begun: time.Now()}
	namespaces := suite.client.CoreV1().Namespaces()
	// What an interrupted run has left.
	if err := namespaces.Delete(t.Context(), s.name, metav1.DeleteOptions{}); err == nil {
		eventually(t, within, "the namespace of an earlier run goes", func() error {
			_, err := namespaces.Get(t.Context(), s.name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("still there: %w", err)
		})
	}
	if _, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
		if os.Getenv("TULLE_E2E_KEEP") == "1" {
			return
		}
		// Not waited for: the names of namespaces are the tests' own.
		zero := int64(1)
		_ = namespaces.Delete(context.Background(), s.name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	})
	eventually(t, within, "the namespace has its service account", func() error {
		_, err := suite.client.CoreV1().ServiceAccounts(s.name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return s
}

// as is the same namespace in a subtest, which then is what fails.
func (s *space) as(t *testing.T) *space {
	c := *s
	c.t = t
	t.Cleanup(func() {
		if t.Failed() {
			c.tell()
		}
	})
	return &c
}

// label sets a label of the namespace; an empty value takes it away.
func (s *space) label(key, value string) {
	s.t.Helper()
	quoted := "null"
	if value != "" {
		quoted = fmt.Sprintf("%q", value)
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, key, quoted)
	if _, err := suite.client.CoreV1().Namespaces().Patch(s.t.Context(), s.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) apply(text string) {
	s.t.Helper()
	if err := suite.apply(s.t.Context(), s.name, text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) remove(text string) {
	s.t.Helper()
	if err := suite.remove(s.t.Context(), s.name, text); err != nil {
		s.t.Fatal(err)
	}
}

// pods returns the pods with a label app.
func (s *space) pods(app string) []corev1.Pod {
	s.t.Helper()
	list, err := suite.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// ready waits until exactly n pods of app are there and all are ready.
func (s *space) ready(app string, n int) []corev1.Pod {
	s.t.Helper()
	var pods []corev1.Pod
	eventually(s.t, within, fmt.Sprintf("%d ready pods of %s", n, app), func() error {
		pods = s.pods(app)
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		for _, p := range pods {
			if !isReady(&p) || p.DeletionTimestamp != nil {
				return fmt.Errorf("%s is %s", p.Name, describePod(&p))
			}
		}
		return nil
	})
	return pods
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func describePod(p *corev1.Pod) string {
	text := string(p.Status.Phase)
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			text += fmt.Sprintf(", %s waits: %s %s", c.Name, c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil:
			text += fmt.Sprintf(", %s ended: %s, code %d", c.Name, c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		case !c.Ready:
			text += ", " + c.Name + " is not ready"
		}
	}
	if p.DeletionTimestamp != nil {
		text += ", terminating"
	}
	return text
}
