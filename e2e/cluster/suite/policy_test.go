package suite_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// testPolicy: AuthorizationPolicies by namespace, service account, port and address.
func testPolicy(t *testing.T) {
	s := enrolled(t, "policy")
	other := enrolled(t, "policy-other")
	s.account("alice")
	s.account("bob")
	server := s.deploy("server", 1, onNode(nodeServer))[0]
	s.service("server")
	alice := s.client("alice", onNode(nodeClient), withAccount("alice"))
	bob := s.client("bob", onNode(nodeClient), withAccount("bob"))
	stranger := other.client("stranger", onNode(nodeClient))
	neighbour := s.client("neighbour", onNode(nodeServer), withAccount("bob"))
	target := url(s.host("server"), 80)
	everybody := []*pod{alice, bob, stranger, neighbour}
	policy := func(rules string) string {
		return fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: policy}
spec:
  selector: {matchLabels: {app: server}}
%s`, rules)
	}
	cases := []struct {
		name, rules string
		// may are who passes to the HTTP port; echo who passes to the echo port, nil if it is not looked at.
		may, echo []*pod
	}{
		{"namespace", `  rules: [{from: [{source: {namespaces: [e2e-policy-other]}}]}]`, []*pod{stranger}, nil},
		{"service account", `  rules: [{from: [{source: {principals: [cluster.local/ns/e2e-policy/sa/alice]}}]}]`, []*pod{alice}, nil},
		{"not namespace", `  rules: [{from: [{source: {notNamespaces: [e2e-policy-other]}}]}]`, []*pod{alice, bob, neighbour}, nil},
		{"port", `  rules: [{to: [{operation: {ports: ["8080"]}}]}]`, everybody, []*pod{}},
		{"port and account", `  rules:
  - from: [{source: {principals: [cluster.local/ns/e2e-policy/sa/bob]}}]
    to: [{operation: {ports: ["8080"]}}]
  - from: [{source: {principals: [cluster.local/ns/e2e-policy/sa/alice]}}]
    to: [{operation: {ports: ["9000"]}}]`, []*pod{bob, neighbour}, []*pod{alice}},
		{"address", fmt.Sprintf(`  rules: [{from: [{source: {ipBlocks: [%q]}}]}]`, alice.ip), []*pod{alice}, nil},
		{"range of a node", `  rules: [{from: [{source: {ipBlocks: ["10.244.1.0/24"]}}]}]`, []*pod{alice, bob, stranger}, nil},
		{"deny one account", `  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/e2e-policy/sa/bob]}}]}]`, []*pod{alice, stranger}, nil},
		{"allow nothing", `  {}`, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := s.as(t)
			text := policy(c.rules)
			if c.name == "allow nothing" {
				text = strings.TrimSuffix(text, "  {}")
			}
			s.apply(text)
			// Policies of one test follow each other under one name, so that none is without.
			for _, p := range everybody {
				p := p.as(t)
				if contains(c.may, p) {
					p.reaches(target)
				} else {
					p.refused(target)
				}
				if c.echo != nil {
					echo := func() error {
						_, err := p.exec("app", "hold", "--addr="+server.Status.PodIP+":9000", "--duration=300ms", "--every=50ms", "--timeout=3s")
						return err
					}
					if contains(c.echo, p) {
						eventually(t, within, p.name+" reaches the echo port", echo)
					} else {
						eventually(t, within, p.name+" is refused by the echo port", func() error {
							if err := echo(); err == nil {
								return fmt.Errorf("echoed")
							}
							return nil
						})
					}
				}
			}
		})
	}
	t.Run("without policy again", func(t *testing.T) {
		s.as(t).remove(policy(""))
		for _, p := range everybody {
			p.as(t).reaches(target)
		}
	})
}

func contains(pods []*pod, p *pod) bool {
	for _, q := range pods {
		if q.name == p.name {
			return true
		}
	}
	return false
}

// testStrict: with STRICT an unmeshed client is refused, and its operator finds out why; the kubelet's probes pass.
func testStrict(t *testing.T) {
	s, plain := enrolled(t, "strict"), outside(t, "strict-plain")
	server := s.deploy("server", 1, onNode(nodeServer))[0]
	s.service("server")
	member := s.client("member", onNode(nodeClient))
	guest := plain.client("guest", onNode(nodeClient))
	guest.reaches(url(s.host("server"), 80))
	begun := time.Now()
	s.apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
`)
	guest.refused(url(s.host("server"), 80))
	guest.refused(url(server.Status.PodIP, portHTTP))
	member.reaches(url(s.host("server"), 80))
	if _, err := guest.get(url(server.Status.PodIP, portHTTP)); err != nil {
		t.Logf("what the client sees: %v", err)
		if strings.Contains(err.Error(), "timeout") {
			t.Errorf("the client waits for a timeout instead of being told no: %v", err)
		}
	}
	t.Run("explain tells why", func(t *testing.T) {
		out, err := meshctl(t, "explain", plain.name+"/"+guest.name, s.name+"/server:80")
		t.Logf("%s\n%v", out, err)
		if !strings.Contains(strings.ToLower(out), "strict") {
			t.Error("meshctl explain does not name STRICT")
		}
	})
	t.Run("the server's ztunnel logs why", func(t *testing.T) {
		eventually(t, within, "a line of the refusal", func() error {
			text := meshLogs(t, "ztunnel", nodeServer, begun)
			for line := range strings.Lines(text) {
				if strings.Contains(line, guest.ip) && strings.Contains(strings.ToLower(line), "strict") {
					t.Log(strings.TrimSpace(line))
					return nil
				}
			}
			return fmt.Errorf("no line names %s and STRICT", guest.ip)
		})
	})
	t.Run("probes pass", func(t *testing.T) {
		fresh := s.as(t).deploy("fresh", 1, onNode(nodeServer))[0]
		holds(t, 12*time.Second, "pods stay ready under STRICT", func() error {
			for _, name := range []string{server.Name, fresh.Name} {
				p, err := suite.client.CoreV1().Pods(s.name).Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				if !isReady(p) || p.Status.ContainerStatuses[0].RestartCount > 0 {
					return fmt.Errorf("%s: %s, %d restarts", name, describePod(p), p.Status.ContainerStatuses[0].RestartCount)
				}
			}
			return nil
		})
	})
}
