package suite_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/e2e/cluster/machine"
)

// Bounds of recoveries. Each is what the mesh promises, with room for a machine
// that is busy with three nodes.
const (
	// ztunnelBack: the old ztunnel drains for 20 s at most, then the new one starts.
	ztunnelBack = 90 * time.Second
	// nodeLost is when Kubernetes takes a silent node's pods out of the Services: 16 s of silence.
	nodeLost = 90 * time.Second
	// nodeBack is a node's way back, with all its pods.
	nodeBack = 3 * time.Minute
)

// traffic is what disturbances are measured with: a client and servers on nodes of
// their own, requests on new connections and one long connection.
type traffic struct {
	space        *space
	client       *pod
	load, held   *job
	server, host string
}

func startTraffic(t *testing.T, name string, replicas int, options ...option) *traffic {
	s := enrolled(t, name)
	servers := s.deploy("server", replicas, options...)
	s.service("server")
	client := s.client("client", onNode(nodeClient))
	tr := &traffic{space: s, client: client, host: s.host("server"), server: servers[0].Status.PodIP}
	tr.load = client.load(url(tr.host, 80), 50, "--timeout=10s")
	tr.held = client.hold(fmt.Sprintf("%s:%d", tr.server, portEcho), "--timeout=20s")
	tr.load.passes(50, within)
	return tr
}

// testIstiodDeleted: the control plane goes, the traffic does not notice.
func testIstiodDeleted(t *testing.T) {
	tr := startTraffic(t, "istiod", 2, spread, withNodes(nodeServer, nodeVictim))
	n := deleteMeshPods(t, "istiod", "")
	tr.load.passes(200, within)
	meshReady(t, "istiod", n, within)
	tr.load.passes(100, within)
	// What came after is served by the new ones.
	late := tr.space.deploy("late", 1, onNode(nodeServer))[0]
	tr.client.reaches(url(late.Status.PodIP, portHTTP))
	tr.load.stopClean("istiod's pods deleted")
	if r := tr.held.held(); len(r.Breaks) > 0 {
		t.Errorf("the long connection broke: %+v", r.Breaks)
	}
}

// testAgentDeleted: the agents go and come; traffic goes on, and new pods wait for
// them instead of starting outside the mesh.
func testAgentDeleted(t *testing.T) {
	tr := startTraffic(t, "agent", 2, spread, withNodes(nodeServer, nodeVictim))
	n := deleteMeshPods(t, "tulle-agent", "")
	late := tr.space.deploy("late", 1, onNode(nodeServer))[0]
	tr.client.reaches(url(late.Status.PodIP, portHTTP))
	meshReady(t, "tulle-agent", n, within)
	tr.space.redirection("enabled")
	tr.load.passes(100, within)
	tr.load.stopClean("agents deleted")
	if r := tr.held.held(); len(r.Breaks) > 0 {
		t.Errorf("the long connection broke: %+v", r.Breaks)
	}
}

// testZtunnelDeleted: the proxies of both ends are deleted, one after the other.
// What breaks is counted, and it is over when the new ones are ready.
func testZtunnelDeleted(t *testing.T) {
	tr := startTraffic(t, "ztunnel", 1, onNode(nodeServer))
	for _, node := range []string{nodeServer, nodeClient} {
		before := tr.load.peek()
		begun := time.Now()
		deleteMeshPods(t, "ztunnel", node)
		meshReady(t, "ztunnel", 3, ztunnelBack)
		back := time.Since(begun)
		tr.load.passes(100, within)
		after := tr.load.peek()
		t.Logf("ztunnel of %s deleted: another was ready after %.1f s; of %d requests %d failed; long connection %+v",
			node, back.Seconds(), after.Sent-before.Sent, after.Failed-before.Failed, tr.held.held().Breaks)
	}
	r := tr.load.stop()
	t.Log(r)
	// A new pod is enrolled by the new ztunnels.
	late := tr.space.deploy("late", 1, onNode(nodeServer))[0]
	tr.client.reaches(url(late.Status.PodIP, portHTTP))
}

// testCNIConfigOverwritten: another plugin writes the node's CNI configuration anew;
// the mesh's plugin comes back into it, and no pod starts outside the mesh.
func testCNIConfigOverwritten(t *testing.T) {
	s := enrolled(t, "cni")
	client := s.client("client", onNode(nodeClient))
	config := func() string {
		return onNodeRun(t, nodeServer, "sh", "-c", "cat /etc/cni/net.d/*.conflist")
	}
	if !strings.Contains(config(), "tulle-cni") {
		t.Fatalf("the plugin is not in the node's CNI configuration:\n%s", config())
	}
	// As an upgrade of the network plugin does: the file without what was added.
	onNodeRun(t, nodeServer, "sh", "-c", `set -e; cd /etc/cni/net.d; f=$(ls *.conflist | head -1)
python3 - "$f" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
c["plugins"] = [p for p in c["plugins"] if p["type"] != "tulle-cni"]
open(sys.argv[1], "w").write(json.dumps(c))
P`)
	pods := s.deploy("server", 3, onNode(nodeServer))
	eventually(t, within, "the plugin is back", func() error {
		if !strings.Contains(config(), "tulle-cni") {
			return errors.New(config())
		}
		return nil
	})
	s.redirection("enabled")
	for _, p := range pods {
		client.reaches(url(p.Status.PodIP, portHTTP))
	}
}

// onNodeRun runs a command on a node.
func onNodeRun(t testing.TB, node string, args ...string) string {
	t.Helper()
	command, err := suite.cluster.NodeCommand(node, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", node, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// nodeReady waits for what Kubernetes says of a node.
func nodeReady(t *testing.T, node string, want bool, bound time.Duration) {
	t.Helper()
	eventually(t, bound, fmt.Sprintf("node %s ready: %v", node, want), func() error {
		n, err := suite.client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && (c.Status == corev1.ConditionTrue) == want {
				return nil
			}
		}
		return fmt.Errorf("%+v", n.Status.Conditions)
	})
}

// testKubeletStopped: a node's kubelet is silent; its pods serve on, no request fails.
func testKubeletStopped(t *testing.T) {
	tr := startTraffic(t, "kubelet", 2, spread, withNodes(nodeServer, nodeVictim))
	if err := suite.cluster.StopService(t.Context(), nodeVictim, machine.Kubelet); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = suite.cluster.StartService(t.Context(), nodeVictim, machine.Kubelet) })
	nodeReady(t, nodeVictim, false, nodeLost)
	tr.load.passes(100, within)
	if err := suite.cluster.StartService(t.Context(), nodeVictim, machine.Kubelet); err != nil {
		t.Fatal(err)
	}
	nodeReady(t, nodeVictim, true, nodeBack)
	tr.space.ready("server", 2)
	tr.load.passes(100, within)
	tr.load.stopClean("kubelet stopped and started")
}

// testNetworkCut: a node is cut off; requests to its pod fail until Kubernetes takes
// the pod out of the Service, and then no more; when the node is back, its pod is too.
func testNetworkCut(t *testing.T) {
	tr := startTraffic(t, "network", 2, spread, withNodes(nodeServer, nodeVictim))
	begun := time.Now()
	if err := suite.cluster.CutNetwork(nodeVictim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = suite.cluster.RestoreNetwork(nodeVictim) })
	nodeReady(t, nodeVictim, false, nodeLost)
	t.Logf("the node counts as lost after %.1f s", time.Since(begun).Seconds())
	tr.load.passes(200, nodeLost)
	cut := tr.load.peek()
	t.Logf("cut: %s", cut)
	if err := suite.cluster.RestoreNetwork(nodeVictim); err != nil {
		t.Fatal(err)
	}
	nodeReady(t, nodeVictim, true, nodeBack)
	tr.space.ready("server", 2)
	meshReady(t, "ztunnel", 3, nodeBack)
	// Both pods answer again: those on the node as well.
	eventually(t, within, "the pod of the restored node answers", func() error {
		r := tr.load.peek()
		for name, n := range r.Pods {
			if n > cut.Pods[name] && onNodeName(tr.space, name) == nodeVictim {
				return nil
			}
		}
		return fmt.Errorf("answers by %v, before by %v", r.Pods, cut.Pods)
	})
	tr.load.passes(200, within)
	t.Log(tr.load.stop())
}

func onNodeName(s *space, name string) string {
	for _, p := range s.pods("server") {
		if p.Name == name {
			return p.Spec.NodeName
		}
	}
	return ""
}

// containersOn returns the containers that the API tells to run on a node, by id.
func containersOn(t testing.TB, node string) map[string]string {
	t.Helper()
	pods, err := suite.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running != nil {
				ids[c.ContainerID] = p.Namespace + "/" + p.Name
			}
		}
	}
	return ids
}

// testNodeReboot: a node loses its power and comes back; its pods are in the mesh
// again, and none sends in the clear.
func testNodeReboot(t *testing.T) {
	tr := startTraffic(t, "reboot", 2, spread, withNodes(nodeServer, nodeVictim))
	sender := tr.space.client("sender", onNode(nodeVictim))
	before := containersOn(t, nodeVictim)
	if err := suite.cluster.StopNode(nodeVictim); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	t.Cleanup(func() { _ = suite.cluster.StartNode(t.Context(), nodeVictim) })
	if err := suite.cluster.StartNode(t.Context(), nodeVictim); err != nil {
		t.Fatal(err)
	}
	// Until the kubelet tells of new containers, the API shows how the node was.
	eventually(t, nodeBack, "every container of the node is another one", func() error {
		for id, name := range containersOn(t, nodeVictim) {
			if _, old := before[id]; old {
				return fmt.Errorf("%s is still told to run as before", name)
			}
		}
		return nil
	})
	nodeReady(t, nodeVictim, true, nodeBack)
	meshReady(t, "ztunnel", 3, nodeBack)
	meshReady(t, "tulle-agent", 3, nodeBack)
	tr.space.ready("server", 2)
	tr.space.ready("sender", 1)
	t.Logf("the node, its proxies and pods were ready again after %.1f s", time.Since(begun).Seconds())
	tr.space.redirection("enabled")
	sender.reaches(url(tr.host, 80))
	eventually(t, within, "the rebooted node's pod answers", func() error {
		for _, p := range tr.space.pods("server") {
			if p.Spec.NodeName == nodeVictim {
				_, err := tr.client.get(url(p.Status.PodIP, portHTTP))
				return err
			}
		}
		return errors.New("no such pod")
	})
	tr.load.passes(200, within)
	t.Log(tr.load.stop())
}
