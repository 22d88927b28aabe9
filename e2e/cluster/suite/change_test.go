package suite_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// testMembership: a namespace joins the mesh and leaves it while its pods are under
// load; no pod is restarted, every request on a new connection is answered, and
// while it is in the mesh nothing of it is seen between the nodes.
func testMembership(t *testing.T) {
	marker := newMarker("member")
	capture.watch(marker)
	s := newSpace(t, "membership", nil, marker)
	servers := s.deploy("server", 2, spread, withNodes(nodeServer, nodeVictim))
	s.service("server")
	clients := []*pod{s.client("client", onNode(nodeClient)), s.client("near", onNode(nodeServer))}
	guest := outside(t, "membership-guest").client("guest", onNode(nodeClient))
	var loads []*job
	for _, c := range append(clients, guest) {
		loads = append(loads, c.load(url(s.host("server"), 80), 40))
	}
	held := clients[0].hold(fmt.Sprintf("%s:%d", servers[0].Status.PodIP, portEcho), "--reconnect")
	names := podNames(s)
	for round := range 2 {
		s.label(modeLabel, "ambient")
		s.redirection("enabled")
		// The peers hear of it a moment later; from then on nothing may be seen.
		time.Sleep(settle)
		before := capture.count(marker)
		for _, l := range loads {
			l.passes(80, within)
		}
		if n := capture.count(marker) - before; n > 0 && !oldConnection(held) {
			t.Errorf("round %d: %d packets were in the clear between the nodes while the namespace was in the mesh", round, n)
		}
		s.label(modeLabel, "")
		s.redirection("")
		for _, l := range loads {
			l.passes(80, within)
		}
	}
	for i, l := range loads {
		l.stopClean(fmt.Sprintf("client %d, joins and leaves", i))
	}
	if r := held.held(); len(r.Breaks) > 0 {
		t.Logf("the long connection broke %d times: %+v", len(r.Breaks), r.Breaks)
	}
	if now := podNames(s); now != names {
		t.Errorf("pods were replaced: before %s, after %s", names, now)
	}
}

// settle is how long the mesh may take to tell everybody of a change.
const settle = 3 * time.Second

// oldConnection tells whether a held connection is older than the mesh: it goes on
// as it was opened, in the clear.
func oldConnection(held *job) bool { r := held.held(); return r.Running && r.Connected == 1 }

func podNames(s *space) string {
	text := ""
	for _, app := range []string{"server", "client", "near"} {
		for _, p := range s.pods(app) {
			text += fmt.Sprintf("%s(%d) ", p.Name, p.Status.ContainerStatuses[0].RestartCount)
		}
	}
	return text
}

// redirection waits until every pod's annotation is want.
func (s *space) redirection(want string) {
	s.t.Helper()
	eventually(s.t, within, fmt.Sprintf("all pods' redirection is %q", want), func() error {
		list, err := suite.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if got := p.Annotations["ambient.istio.io/redirection"]; got != want {
				return fmt.Errorf("%s: %q", p.Name, got)
			}
		}
		return nil
	})
}

// testRollout: a Deployment is updated, pod by pod, at 200 requests per second, of
// which none fails.
func testRollout(t *testing.T) {
	s := enrolled(t, "rollout")
	s.deploy("server", 3, spread, withArgs("serve", "--version=old"))
	s.service("server")
	client := s.client("client", onNode(nodeClient))
	load := client.load(url(s.host("server"), 80), 200)
	load.passes(200, within)
	begun := time.Now()
	patch := `{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":1}},
	  "template":{"spec":{"topologySpreadConstraints":null,"containers":[{"name":"app","args":["serve","--version=new"]}]}}}}`
	deployments := suite.client.AppsV1().Deployments(s.name)
	if _, err := deployments.Patch(t.Context(), "server", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Minute, "the rollout ends", func() error {
		d, err := deployments.Get(t.Context(), "server", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if st := d.Status; d.Generation != st.ObservedGeneration || st.UpdatedReplicas != 3 || st.AvailableReplicas != 3 || st.Replicas != 3 {
			return fmt.Errorf("%d of 3 updated, %d available, %d in all", st.UpdatedReplicas, st.AvailableReplicas, st.Replicas)
		}
		return nil
	})
	s.ready("server", 3) // the old pods are gone
	t.Logf("rolled out in %.1f s", time.Since(begun).Seconds())
	load.passes(200, within)
	if r := load.stopClean("rollout at 200 requests/s"); r.Versions["old"] == 0 || r.Versions["new"] == 0 {
		t.Errorf("answers by version: %v", r.Versions)
	}
}

// testScaleToZero: without a pod requests fail at once and say so; with pods again they pass.
func testScaleToZero(t *testing.T) {
	s := enrolled(t, "scale")
	s.deploy("server", 2)
	s.service("server")
	client := s.client("client", onNode(nodeClient))
	target := url(s.host("server"), 80)
	client.reaches(target)
	for range 2 {
		s.scale("server", 0)
		eventually(t, within, "no pods", func() error {
			if pods := s.pods("server"); len(pods) > 0 {
				return fmt.Errorf("%d", len(pods))
			}
			return nil
		})
		client.refused(target)
		begun := time.Now()
		_, err := client.get(target)
		t.Logf("without a pod, after %v: %v", time.Since(begun).Round(time.Millisecond), err)
		s.scale("server", 2)
		s.ready("server", 2)
		// From its first answer on it answers every time.
		client.reaches(target)
		load := client.load(target, 50)
		load.passes(100, within)
		load.stopClean("after scaling up")
	}
}

func (s *space) scale(deployment string, n int) {
	s.t.Helper()
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: deployment, Namespace: s.name}, Spec: autoscalingv1.ScaleSpec{Replicas: int32(n)}}
	if _, err := suite.client.AppsV1().Deployments(s.name).UpdateScale(s.t.Context(), deployment, scale, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// deleteMeshPods deletes pods of the mesh as an operator does, who gives them their grace.
func deleteMeshPods(t *testing.T, app, node string) int {
	t.Helper()
	pods := meshPods(t, app, node)
	for _, p := range pods {
		if err := suite.client.CoreV1().Pods(meshNamespace).Delete(context.WithoutCancel(t.Context()), p.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return len(pods)
}
