package app_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/istiod-lite/app"
)

func workload(m proto.Message) *apiworkload.Workload {
	a, _ := m.(*apiworkload.Address)
	return a.GetWorkload()
}

func TestAChangedFileReachesAConnectedProxy(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.write("web.yaml", podYAML("shop", "web-0", "10.0.0.1", ""))
	p.start()
	m := p.connect("ztunnel")
	m.synced()
	m.await("the pod", func(s map[string]proto.Message) bool {
		return workload(s["Kubernetes//Pod/shop/web-0"]).GetTunnelProtocol() == apiworkload.TunnelProtocol_HBONE
	})
	p.write("api.yaml", podYAML("shop", "api-0", "10.0.0.2", ""))
	m.await("the new pod", func(s map[string]proto.Message) bool { return s["Kubernetes//Pod/shop/api-0"] != nil })

	var sync app.Syncz
	if p.get("/debug/syncz", &sync); len(sync.Clients) != 1 || sync.Clients[0].Account != "istio-system/ztunnel" || sync.Clients[0].Machine != "n1" {
		t.Errorf("syncz = %+v", sync)
	}
	var ready string
	if code := p.get("/healthz/ready", &ready); code != 200 {
		t.Errorf("ready = %d %s", code, ready)
	}
}

func TestABrokenFileLeavesTheLastGoodStateInForceAndShows(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.write("web.yaml", podYAML("shop", "web-0", "10.0.0.1", ""))
	p.start()
	m := p.connect("ztunnel")
	m.synced()
	policy := `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {%s: ["cluster.local/ns/shop/sa/web"]}}]}]}
`
	p.write("policy.yaml", fmt.Sprintf(policy, "notPrincipal"))
	deadline(t, "the problem to show", func() bool {
		var e app.Errorz
		p.get("/debug/errorz", &e)
		return len(e.Source.Problems) == 1 && e.Source.Problems[0].File == "policy.yaml" &&
			e.Source.Problems[0].Object == "AuthorizationPolicy shop/deny" &&
			e.Source.Problems[0].Field == "spec.rules[0].from[0].source.notPrincipal"
	})
	var metrics string
	p.get("/metrics", &metrics)
	if !strings.Contains(metrics, "istiod_config_problems 1") {
		t.Error("istiod_config_problems is not 1")
	}
	if m.take(); len(m.state) != 1 {
		t.Errorf("state = %v, want the pod", m.state)
	}
	p.write("policy.yaml", fmt.Sprintf(policy, "notPrincipals"))
	m.await("the policy", func(s map[string]proto.Message) bool { return s["shop/deny"] != nil })
	var e app.Errorz
	if p.get("/debug/errorz", &e); len(e.Source.Problems) != 0 {
		t.Errorf("problems left: %v", e.Source.Problems)
	}
}

func TestOneChangedPodOfTenThousandSendsOneResource(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.write("svc.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n")
	const pods = 10_000
	docs := make([]string, pods)
	for i := range docs {
		docs[i] = podYAML("shop", fmt.Sprintf("web-%d", i), fmt.Sprintf("10.%d.%d.%d", 1+i/60000, i/250%240, i%250+1), "")
	}
	p.write("pods.yaml", strings.Join(docs, "---\n"))
	p.start()
	m := p.connect("ztunnel")
	m.synced()
	m.await("all pods", func(s map[string]proto.Message) bool { return len(s) == pods+1 })
	m.take()

	const changed = "Kubernetes//Pod/shop/web-7777"
	docs[7777] = podYAML("shop", "web-7777", "10.200.0.1", "")
	p.write("pods.yaml", strings.Join(docs, "---\n"))
	m.await("the change", func(s map[string]proto.Message) bool {
		return slices.Equal(workload(s[changed]).GetAddresses()[0], []byte{10, 200, 0, 1})
	})
	if got := m.take(); len(got) != 1 || !slices.Equal(got[0], []string{changed}) {
		t.Errorf("deltas = %.200v, want one with the pod alone", fmt.Sprint(got))
	}

	// The successor of this process knows nothing of the client, which says what
	// it has: only what changed meanwhile is sent.
	p.stop()
	docs[5] = podYAML("shop", "web-5", "10.200.0.2", "")
	p.write("pods.yaml", strings.Join(append(docs[:9], docs[10:]...), "---\n"))
	p.start()
	m.await("what changed in between", func(s map[string]proto.Message) bool {
		return s["Kubernetes//Pod/shop/web-9"] == nil && slices.Equal(workload(s["Kubernetes//Pod/shop/web-5"]).GetAddresses()[0], []byte{10, 200, 0, 2})
	})
	var names []string
	for _, b := range m.take() {
		names = append(names, b...)
	}
	slices.Sort(names)
	if want := []string{"-Kubernetes//Pod/shop/web-9", "Kubernetes//Pod/shop/web-5"}; !slices.Equal(names, want) {
		t.Errorf("after the reconnect came %.300s, want %v", fmt.Sprint(names), want)
	}
}

func TestOnlyNodeAccountsMaySubscribe(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.start()
	m := p.connect("web")
	deadline(t, "the refusal", func() bool { return strings.Contains(m.client.Status().LastError, "PermissionDenied") })
	if m.client.Status().Types[xdsclient.AddressType].Synced {
		t.Error("a workload's account got the mesh")
	}
}

func TestARefusedResourceShowsInErrorz(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", namespaceYAML)
	p.write("web.yaml", podYAML("shop", "web-0", "10.0.0.1", "")+"---\n"+podYAML("shop", "web-1", "10.0.0.2", ""))
	p.start()
	m := p.connect("ztunnel")
	m.mu.Lock()
	m.rejected["Kubernetes//Pod/shop/web-0"] = true
	m.mu.Unlock()
	m.synced()
	m.await("the good one", func(s map[string]proto.Message) bool { return s["Kubernetes//Pod/shop/web-1"] != nil })
	deadline(t, "the refusal to show", func() bool {
		var e app.Errorz
		p.get("/debug/errorz", &e)
		return len(e.Refused) == 1 && strings.Contains(e.Refused[0].Message, "Kubernetes//Pod/shop/web-0: refused by the test")
	})
}

func TestBeforeTheFirstGoodStateNothingIsServed(t *testing.T) {
	p := newPlane(t)
	p.write("ns.yaml", "apiVersion: v1\nkind: Namespac\nmetadata: {name: shop}\n")
	p.start()
	m := p.connect("ztunnel")
	deadline(t, "the stream", func() bool { return m.client.Status().Connected })
	var ready string
	if code := p.get("/healthz/ready", &ready); code != 500 || !strings.Contains(ready, "first configuration") {
		t.Errorf("ready = %d %q", code, ready)
	}
	select {
	case <-m.client.Synced():
		t.Fatal("synced with nothing")
	default:
	}
	p.write("ns.yaml", namespaceYAML)
	m.synced()
}
