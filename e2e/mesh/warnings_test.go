package mesh_test

import (
	"slices"
	"strings"
	"testing"
)

// TestDeadReferencesAreToldWhenTheyComeAndGo has `meshctl local up` say what an object
// names that does not exist, each once, and no more when that is mended.
func TestDeadReferencesAreToldWhenTheyComeAndGo(t *testing.T) {
	m := start(t)
	const dead = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: dead-route, namespace: data}
spec: {parentRefs: [{group: "", kind: Service, name: dead}], rules: [{backendRefs: [{name: dead, port: 80}]}]}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: FaultPolicy
metadata: {name: dead-faults, namespace: data}
spec: {targetRefs: [{group: "", kind: Service, name: dead}], delay: {duration: 1s}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dead-rule, namespace: data}
spec: {host: dead}
`
	told := func() []string {
		t.Helper()
		out, err := m.converge()
		if err != nil {
			t.Fatalf("meshctl local up: %v\n%s", err, out)
		}
		var lines []string
		for line := range strings.Lines(out) {
			if strings.Contains(line, "/dead-") && strings.HasPrefix(line, "warning: ") {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
		}
		return lines
	}
	m.apply(t, "dead.yaml", dead)
	if got, want := told(), []string{
		"warning: DestinationRule data/dead-rule: No service has the host dead.data.svc.cluster.local",
		`warning: FaultPolicy data/dead-faults: Namespace data does not allow faults: it has no label policy.tulle.dev/allow-faults: "true"`,
		"warning: HTTPRoute data/dead-route: Service data/dead does not exist",
	}; !slices.Equal(got, want) {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	m.up(t, "dead.yaml", strings.Split(dead, "---\n")[2])
	if got := told(); len(got) != 1 {
		t.Errorf("told of what is gone: %q", got)
	}
}
