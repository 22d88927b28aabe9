package plan_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

func load(t *testing.T, text string) *manifest.Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := manifest.Load([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	// The folder is part of a pod's spec, and differs from call to call.
	docs := []manifest.Document{}
	for _, o := range set.Objects() {
		d := o.Place
		d.Dir = "/"
		docs = append(docs, d)
	}
	set, err = manifest.Parse(docs)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

var uids int

func newUID() string { uids++; return fmt.Sprintf("uid-%d", uids) }

func build(t *testing.T, text string, prev *plan.Plan) *plan.Plan {
	t.Helper()
	p, err := plan.Make(load(t, text), plan.Nodes(2), prev, newUID)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pod(name, rest string) string {
	return "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: " + name + "\n  labels: {app: " + name + "}\n" + strings.ReplaceAll(rest, "META ", "  ") +
		"spec:\n  containers: [{name: c, command: [sleep]}]\n"
}

func namespace(labels string) string {
	return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {" + labels + "}}\n"
}

func TestWhatStaysKeepsNodeAddressAndUID(t *testing.T) {
	first := build(t, pod("a", "")+pod("b", "")+pod("c", ""), nil)
	second := build(t, pod("c", "")+pod("d", ""), first)
	was, is := first.Pod(plan.PodKey{"default", "c"}), second.Pod(plan.PodKey{"default", "c"})
	if was.UID != is.UID || was.IPv4 != is.IPv4 || was.IPv6 != is.IPv6 || was.Node != is.Node {
		t.Errorf("c moved from %+v to %+v", was, is)
	}
	d := second.Pod(plan.PodKey{"default", "d"})
	for _, old := range first.Pods {
		if d.IPv4 == old.IPv4 || d.IPv6 == old.IPv6 {
			t.Errorf("d has the address of %s, whose connections may still be open", old.Name)
		}
	}
}

func TestAChangedSpecMakesANewPodAndAChangedLabelDoesNot(t *testing.T) {
	first := build(t, pod("a", ""), nil)
	relabelled := build(t, strings.Replace(pod("a", ""), "app: a", "app: b", 1), first)
	if relabelled.Pods[0].UID != first.Pods[0].UID {
		t.Error("a changed label made a new pod")
	}
	changed := build(t, strings.Replace(pod("a", ""), "[sleep]", "[cat]", 1), first)
	if changed.Pods[0].UID == first.Pods[0].UID {
		t.Error("a changed command kept the pod")
	}
}

func TestPodsSpreadOverTheNodesUnlessTheySayWhere(t *testing.T) {
	p := build(t, pod("a", "")+pod("b", "")+strings.Replace(pod("c", ""), "spec:", "spec:\n  nodeName: node-2", 1), nil)
	nodes := map[string]string{}
	for _, q := range p.Pods {
		nodes[q.Name] = q.Node
	}
	if nodes["a"] == nodes["b"] || nodes["c"] != "node-2" {
		t.Errorf("nodes %v", nodes)
	}
	_, err := plan.Make(load(t, strings.Replace(pod("c", ""), "spec:", "spec:\n  nodeName: moon", 1)), plan.Nodes(2), nil, newUID)
	if err == nil || !strings.Contains(err.Error(), `no node "moon"`) {
		t.Errorf("error %v", err)
	}
}

func TestMembershipComesFromPodOrNamespaceLabel(t *testing.T) {
	const ambient = "istio.io/dataplane-mode: ambient"
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"none":           {namespace("") + pod("a", ""), false},
		"namespace":      {namespace(ambient) + pod("a", ""), true},
		"pod opts out":   {namespace(ambient) + strings.Replace(pod("a", ""), "app: a", "istio.io/dataplane-mode: none", 1), false},
		"pod opts in":    {namespace("") + strings.Replace(pod("a", ""), "app: a", ambient, 1), true},
		"unknown is out": {namespace("istio.io/dataplane-mode: sidecar") + pod("a", ""), false},
	} {
		if got := build(t, c.text, nil).Pods[0].Enrolled; got != c.want {
			t.Errorf("%s: enrolled %v, want %v", name, got, c.want)
		}
	}
}

func peerAuth(name, ns, selector, mode string) string {
	if selector != "" {
		selector = "selector: {matchLabels: {app: " + selector + "}}, "
	}
	return "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: " + name + ", namespace: " + ns + "}\nspec: {" + selector + "mtls: {mode: " + mode + "}}\n"
}

func TestStrictIsDecidedByTheNarrowestPolicy(t *testing.T) {
	root := "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n"
	for name, c := range map[string]struct {
		policies string
		want     bool
	}{
		"none":                        {"", false},
		"mesh":                        {peerAuth("m", "istio-system", "", "STRICT"), true},
		"namespace beats mesh":        {peerAuth("m", "istio-system", "", "STRICT") + peerAuth("own", "default", "", "PERMISSIVE"), false},
		"selector beats both":         {peerAuth("m", "istio-system", "", "PERMISSIVE") + peerAuth("s", "default", "a", "STRICT"), true},
		"selector of others":          {peerAuth("s", "default", "b", "STRICT"), false},
		"unset looks further":         {peerAuth("m", "istio-system", "", "STRICT") + peerAuth("own", "default", "", "UNSET"), true},
		"selector in root is for few": {peerAuth("m", "istio-system", "a", "STRICT"), false},
	} {
		if got := build(t, root+c.policies+pod("a", ""), nil).Pods[0].Strict; got != c.want {
			t.Errorf("%s: strict %v, want %v", name, got, c.want)
		}
	}
}

const service = `---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: a}
  ports: [{port: 80, targetPort: 8080}]
`

func TestOnlyReadyPodsOfTheSelectorAreBackends(t *testing.T) {
	p := build(t, service+pod("a", "")+pod("b", ""), nil)
	all := p.Forwards(func(plan.PodKey) bool { return true })
	if len(all) != 2 {
		t.Fatalf("%d forwards, want one for each family", len(all))
	}
	for _, f := range all {
		if len(f.Backends) != 1 || f.Backends[0].Port() != 8080 || f.Backends[0].Addr().Is4() != f.VIP.Addr().Is4() {
			t.Errorf("forward %+v", f)
		}
	}
	for _, f := range p.Forwards(func(plan.PodKey) bool { return false }) {
		if len(f.Backends) != 0 {
			t.Errorf("backends %v although nobody is ready", f.Backends)
		}
	}
}

func TestEndpointSlicesAreBackendsOfServicesWithoutSelector(t *testing.T) {
	p := build(t, strings.Replace(service, "  selector: {app: a}\n", "", 1)+`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 9000}]
endpoints: [{addresses: [192.0.2.7]}, {addresses: [192.0.2.8], conditions: {ready: false}}]
`, nil)
	for _, f := range p.Forwards(func(plan.PodKey) bool { return true }) {
		if want := "[]"; f.VIP.Addr().Is4() {
			if want = "[192.0.2.7:9000]"; fmt.Sprint(f.Backends) != want {
				t.Errorf("backends %v, want %s", f.Backends, want)
			}
		} else if len(f.Backends) != 0 {
			t.Errorf("backends %v, want %s", f.Backends, want)
		}
	}
}

func TestServiceAddressesStayAndTheUsersOwnAreKept(t *testing.T) {
	first := build(t, service, nil)
	second := build(t, strings.Replace(service, "name: web", "name: also", 1)+service, first)
	if second.Services[1].IPv4 != first.Services[0].IPv4 {
		t.Errorf("web moved from %v to %v", first.Services[0].IPv4, second.Services[1].IPv4)
	}
	own := build(t, service+"  clusterIP: "+first.Services[0].IPv4.String()+"\n"+strings.Replace(service, "name: web", "name: also", 1), nil)
	if own.Services[0].IPv4 == own.Services[1].IPv4 {
		t.Errorf("both services have %v", own.Services[0].IPv4)
	}
}

func TestHostsKnowsTheNamesOfACluster(t *testing.T) {
	headless := strings.Replace(strings.Replace(service, "name: web", "name: peers", 1), "  ports", "  clusterIP: None\n  ports", 1)
	p := build(t, service+headless+strings.Replace(pod("a", ""), "spec:", "spec:\n  subdomain: peers", 1), nil)
	a := p.Pods[0]
	hosts := p.Hosts("default", a, func(plan.PodKey) bool { return true })
	for _, want := range []string{
		p.Services[1].IPv4.String() + "\tweb.default.svc.cluster.local web.default.svc web.default web\n",
		p.Services[1].IPv6.String() + "\tweb.default.svc.cluster.local",
		a.IPv4.String() + "\tpeers.default.svc.cluster.local",
		a.IPv4.String() + "\ta.peers.default.svc.cluster.local",
		a.IPv4.String() + "\ta\n",
		"127.0.0.1\tlocalhost\n",
	} {
		if !strings.Contains(hosts, want) {
			t.Errorf("no line %q in:\n%s", want, hosts)
		}
	}
	if strings.Contains(p.Hosts("other", nil, func(plan.PodKey) bool { return true }), "web.default web") {
		t.Error("the short name is known in another namespace")
	}
}

func TestDeploymentsMakeOwnedPods(t *testing.T) {
	p := build(t, `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, command: [sleep]}]}
`, nil)
	if len(p.Pods) != 3 {
		t.Fatalf("%d pods, want 3", len(p.Pods))
	}
	for _, q := range p.Pods {
		owner := q.Object.OwnerReferences[0]
		if owner.Kind != "ReplicaSet" || !strings.HasPrefix(q.Name, owner.Name+"-") || owner.Name != "web-"+q.Object.Labels["pod-template-hash"] {
			t.Errorf("pod %s with labels %v is owned by %s %s", q.Name, q.Object.Labels, owner.Kind, owner.Name)
		}
	}
}

func TestRenderedPodsHaveWhatAClusterWouldReport(t *testing.T) {
	p := build(t, service+pod("a", ""), nil)
	files, err := p.Render(func(plan.PodKey) plan.PodState { return plan.PodState{Phase: "Running", Ready: true} })
	if err != nil {
		t.Fatal(err)
	}
	text := string(files["pod_default_a.yaml"])
	for _, want := range []string{"uid: " + p.Pods[0].UID, "nodeName: " + p.Pods[0].Node, "phase: Running", "- ip: " + p.Pods[0].IPv4.String(), "serviceAccountName: default", "status: \"True\"\n    type: Ready"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	// What is rendered is what a control plane reads strictly.
	for name, data := range files {
		path := filepath.Join(t.TempDir(), name)
		os.WriteFile(path, data, 0o600)
		if _, err := manifest.Read([]string{path}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(string(files["service_default_web.yaml"]), "clusterIP: "+p.Services[0].IPv4.String()) {
		t.Errorf("service without its address:\n%s", files["service_default_web.yaml"])
	}
}

func TestMorePodsThanANodeHoldsIsAnError(t *testing.T) {
	var b strings.Builder
	for i := range 254 {
		b.WriteString(strings.Replace(pod(fmt.Sprint("p", i), ""), "spec:", "spec:\n  nodeName: node-1", 1))
	}
	_, err := plan.Make(load(t, b.String()), plan.Nodes(2), nil, newUID)
	if err == nil || !strings.Contains(err.Error(), "no free address") {
		t.Errorf("error %v", err)
	}
}
