package mesh_test

import (
	"strings"
	"testing"
)

const denyClient = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-client, namespace: data}
spec:
  selector: {matchLabels: {app: peer}}
  action: DENY
  rules:
  - from:
    - source: {principals: [cluster.local/ns/apps/sa/client]}
    to:
    - operation: {ports: ["7000"]}
`

func TestAPolicyCutsALiveConnectionAndNamesItself(t *testing.T) { policyCuts(t, start(t)) }

func policyCuts(t *testing.T, m *mesh) {
	denied := m.background(t, client, "--", m.bin+"/peer", "hold", peerService+":7000")
	untouched := m.background(t, other, "--", m.bin+"/peer", "hold", peerService+":7000")
	for _, b := range []*background{denied, untouched} {
		if line := b.line(t); line != "open" {
			t.Fatalf("hold printed %q", line)
		}
	}
	m.apply(t, "deny.yaml", denyClient)
	if line := denied.line(t); line != "reset" {
		t.Errorf("the denied connection ended: %s", line)
	}
	m.wantLog(t, []string{"ztunnel", "--node", "node-2"}, "data/deny-client", "ns/apps/sa/client")
	// New ones are refused; another port and another client are not.
	if out, err := m.peer(t.Context(), client, "echo", peerService+":7000", "x"); err == nil {
		t.Errorf("a denied connection echoed %q", out)
	}
	m.want(t, client, "220 hello", "greet", peerService+":7001")
	m.want(t, other, "still allowed", "echo", peerService+":7000", "still allowed")
	select {
	case line := <-untouched.lines:
		t.Errorf("the other client's connection ended: %s", line)
	default:
	}
}

func TestAllowPolicyRefusesEverybodyElse(t *testing.T) {
	m := start(t)
	m.apply(t, "allow.yaml", `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-other, namespace: data}
spec:
  selector: {matchLabels: {app: peer}}
  action: ALLOW
  rules:
  - from:
    - source: {namespaces: [apps], notPrincipals: ["*/sa/client"]}
`)
	m.want(t, other, "in", "echo", peerService+":7000", "in")
	for _, pod := range []string{client, stranger} {
		if out, err := m.peer(t.Context(), pod, "echo", peerService+":7000", "x"); err == nil {
			t.Errorf("%s was let in: %q", pod, out)
		}
	}
	m.wantLog(t, []string{"ztunnel", "--node", "node-2"}, "data/only-other", "ns/apps/sa/client")
}

func TestStrictRefusesPlaintextWithAReason(t *testing.T) {
	m := start(t)
	m.apply(t, "strict.yaml", `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: data}
spec: {mtls: {mode: STRICT}}
`)
	if out, err := m.peer(t.Context(), stranger, "echo", peerService+":7000", "x"); err == nil {
		t.Errorf("a client without identity was let in: %q", out)
	}
	m.wantLog(t, []string{"ztunnel", "--node", "node-2"}, "strict")
	m.want(t, client, "in", "echo", peerService+":7000", "in")
}

func TestAMisspeltPolicyIsRefusedByNameAndNothingChanges(t *testing.T) {
	m := start(t)
	m.want(t, client, "before", "echo", peerService+":7000", "before")
	text := strings.Replace(denyClient, "principals:", "principls:", 1)
	out, err := m.tryUp(t, "misspelt.yaml", text)
	if err == nil {
		t.Errorf("meshctl local up accepted a misspelt field:\n%s", out)
	}
	for _, part := range []string{"misspelt.yaml", "deny-client", "principls"} {
		if !strings.Contains(out, part) {
			t.Errorf("the error does not name %q:\n%s", part, out)
		}
	}
	m.want(t, client, "after", "echo", peerService+":7000", "after")
}
