package suite_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// toldLines bounds what of each log is printed; the files have more.
const toldLines = 25

// tell prints and keeps what is needed to understand why a test failed: the
// namespace's pods and events, their logs, and the mesh's logs since it began.
func (s *space) tell() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := filepath.Join(logs, strings.ReplaceAll(s.t.Name(), "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Log(err)
	}
	var b strings.Builder
	s.tellPods(ctx, &b, s.name)
	s.tellPods(ctx, &b, meshNamespace)
	s.tellEvents(ctx, &b)
	for _, ns := range []string{s.name, meshNamespace} {
		pods, err := suite.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		for _, p := range pods.Items {
			s.tellLog(ctx, &b, dir, &p)
		}
	}
	_ = os.WriteFile(filepath.Join(dir, "summary.txt"), []byte(b.String()), 0o644)
	s.t.Logf("what was seen, all of it in %s:\n%s", dir, b.String())
}

func (s *space) tellPods(ctx context.Context, w io.Writer, namespace string) {
	pods, err := suite.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintf(w, "pods of %s:\n", namespace)
	for _, p := range pods.Items {
		restarts := int32(0)
		for _, c := range p.Status.ContainerStatuses {
			restarts += c.RestartCount
		}
		fmt.Fprintf(w, "  %-45s %-4s %-14s redirection=%q ready=%v restarts=%d %s\n", p.Name, p.Spec.NodeName, p.Status.PodIP,
			p.Annotations["ambient.istio.io/redirection"], isReady(&p), restarts, describePod(&p))
	}
}

func (s *space) tellEvents(ctx context.Context, w io.Writer) {
	events, err := suite.client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "events, without the ordinary:")
	for _, e := range events.Items {
		switch e.Reason {
		case "Scheduled", "Pulled", "Created", "Started", "SuccessfulCreate", "ScalingReplicaSet", "Killing", "SuccessfulDelete":
		default:
			fmt.Fprintf(w, "  %s %s %s (%d times): %s\n", e.LastTimestamp.UTC().Format("15:04:05"), e.InvolvedObject.Name, e.Reason, max(e.Count, 1), e.Message)
		}
	}
}

func (s *space) tellLog(ctx context.Context, w io.Writer, dir string, p *corev1.Pod) {
	for _, c := range p.Spec.Containers {
		s.tellContainer(ctx, w, dir, p, c.Name)
	}
}

func (s *space) tellContainer(ctx context.Context, w io.Writer, dir string, p *corev1.Pod, container string) {
	since := metav1.NewTime(s.begun)
	b, err := suite.client.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container, SinceTime: &since}).DoRaw(ctx)
	if err != nil {
		fmt.Fprintf(w, "log of %s: %v\n", p.Name, err)
		return
	}
	_ = os.WriteFile(filepath.Join(dir, p.Namespace+"_"+p.Name+"_"+container+".log"), b, 0o644)
	var lines []string
	for line := range strings.Lines(string(b)) {
		// The file has them; here they would hide what is out of the ordinary.
		if !strings.Contains(line, "connection complete") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) > toldLines {
		lines = append([]string{fmt.Sprintf("… %d lines before", len(lines)-toldLines)}, lines[len(lines)-toldLines:]...)
	}
	fmt.Fprintf(w, "log of %s on %s:\n  %s\n", p.Name, p.Spec.NodeName, strings.Join(lines, "\n  "))
}
