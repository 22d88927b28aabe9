package manifests_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tulle-mesh/tulle/manifests"
)

func render(t *testing.T, r manifests.Release, assignments ...string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := manifests.Render(r, set(t, assignments...))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func find(t *testing.T, objects []*unstructured.Unstructured, kind, name string, into any) {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			// Strict: a misspelt field of a template fails here, not in a cluster.
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return
		}
	}
	t.Fatalf("no %s %s", kind, name)
}

func TestObjectsComeInTheOrderToApplyThem(t *testing.T) {
	var kinds []string
	for _, o := range render(t, manifests.Release{}) {
		kinds = append(kinds, o.GetKind()+"/"+o.GetName())
	}
	text := strings.Join(kinds, " ")
	at := -1
	for _, want := range []string{"Namespace/istio-system ", "ServiceAccount/istiod ", "ClusterRole/istiod-istio-system ",
		"ClusterRoleBinding/istiod-istio-system ", " Role/istiod ", "Service/istiod ", "NetworkPolicy/istiod ", "Deployment/istiod ", "DaemonSet/"} {
		i := strings.Index(text, want)
		if i <= at {
			t.Errorf("%s is not where it belongs: %s", want, text)
		}
		at = i
	}
}

func TestHelmMakesTheNamespaceItself(t *testing.T) {
	for _, o := range render(t, manifests.Release{Manager: "Helm"}) {
		if o.GetKind() == "Namespace" {
			t.Error("the namespace is among the objects")
		}
	}
}

func TestImages(t *testing.T) {
	for _, c := range []struct {
		release manifests.Release
		set     []string
		want    string
	}{
		{manifests.Release{}, nil, "ghcr.io/tulle-mesh/istiod-lite:0.1.0"},
		{manifests.Release{Version: "v1-dirty"}, nil, "ghcr.io/tulle-mesh/istiod-lite:v1-dirty"},
		{manifests.Release{Version: "v1"}, []string{"tag=v2", "hub=localhost:5000/x"}, "localhost:5000/x/istiod-lite:v2"},
		{manifests.Release{}, []string{`tag="3"`}, "ghcr.io/tulle-mesh/istiod-lite:3"},
	} {
		var d appsv1.Deployment
		find(t, render(t, c.release, c.set...), "Deployment", "istiod", &d)
		if got := d.Spec.Template.Spec.Containers[0].Image; got != c.want {
			t.Errorf("%v %v: %s", c.release, c.set, got)
		}
	}
}

func TestAMemoryLimitBoundsTheHeapToo(t *testing.T) {
	for limit, want := range map[string]string{"200Mi": "180MiB", "1Gi": "921MiB", "1G": "", "": ""} {
		var assign []string
		if limit != "" {
			assign = []string{"ztunnel.resources.limits.memory=" + limit}
		}
		var d appsv1.DaemonSet
		find(t, render(t, manifests.Release{}, assign...), "DaemonSet", "ztunnel", &d)
		got := ""
		for _, e := range d.Spec.Template.Spec.Containers[0].Env {
			if e.Name == "GOMEMLIMIT" {
				got = e.Value
			}
		}
		if got != want {
			t.Errorf("limit %q: GOMEMLIMIT %q, want %q", limit, got, want)
		}
	}
}

func TestTheDrainFitsIntoTheGracePeriod(t *testing.T) {
	var d appsv1.DaemonSet
	find(t, render(t, manifests.Release{}, "ztunnel.drainSeconds=90"), "DaemonSet", "ztunnel", &d)
	if got := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; got != 100 {
		t.Errorf("%d seconds of grace for a drain of 90", got)
	}
	if args := strings.Join(d.Spec.Template.Spec.Containers[0].Args, " "); !strings.Contains(args, "--drain-deadline=90s") {
		t.Error(args)
	}
}

// TestOnlyTheMeshsOwnZtunnelMayAskForOthers installs in another namespace: there the
// default account would be nobody's, or another tenant's.
func TestOnlyTheMeshsOwnZtunnelMayAskForOthers(t *testing.T) {
	objects := render(t, manifests.Release{Namespace: "mesh"})
	var d appsv1.Deployment
	var z appsv1.DaemonSet
	find(t, objects, "Deployment", "istiod", &d)
	find(t, objects, "DaemonSet", "ztunnel", &z)
	want := "--node-accounts=" + z.Namespace + "/" + z.Spec.Template.Spec.ServiceAccountName
	if args := d.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, want) {
		t.Errorf("%q is not among %q", want, args)
	}
}

func TestTheMeshsOwnNamespaceIsAlwaysExcluded(t *testing.T) {
	var d appsv1.DaemonSet
	find(t, render(t, manifests.Release{}, "excludedNamespaces=[]"), "DaemonSet", "tulle-agent", &d)
	if args := strings.Join(d.Spec.Template.Spec.Containers[0].Args, " "); !strings.Contains(args, "--exclude-namespaces=istio-system ") {
		t.Error(args)
	}
}

// TestPodsHaveNoMoreRightsThanTheyNeed holds what is easily lost in an edit.
func TestPodsHaveNoMoreRightsThanTheyNeed(t *testing.T) {
	objects := render(t, manifests.Release{})
	var istiod appsv1.Deployment
	var ztunnel, agent appsv1.DaemonSet
	find(t, objects, "Deployment", "istiod", &istiod)
	find(t, objects, "DaemonSet", "ztunnel", &ztunnel)
	find(t, objects, "DaemonSet", "tulle-agent", &agent)

	if p := istiod.Spec.Template.Spec; !*p.SecurityContext.RunAsNonRoot || *p.Containers[0].SecurityContext.AllowPrivilegeEscalation ||
		len(p.Containers[0].SecurityContext.Capabilities.Add) > 0 || len(p.Volumes) > 0 {
		t.Error("istiod needs no root, no capability, no volume")
	}
	if p := ztunnel.Spec.Template.Spec; p.HostNetwork || p.HostPID || *p.AutomountServiceAccountToken {
		t.Error("ztunnel needs neither its node's network and processes nor the Kubernetes API")
	}
	if p := agent.Spec.Template.Spec; !p.HostNetwork || p.HostPID {
		t.Error("the agent needs its node's network, and not its processes")
	}
	for name, spec := range map[string]appsv1.DaemonSetSpec{"ztunnel": ztunnel.Spec, "agent": agent.Spec,
		"istiod": {Template: istiod.Spec.Template}} {
		p := spec.Template.Spec
		if p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
			t.Errorf("%s: seccomp", name)
		}
		c := p.Containers[0].SecurityContext
		if c.Privileged != nil && *c.Privileged || !*c.ReadOnlyRootFilesystem || c.Capabilities.Drop[0] != "ALL" {
			t.Errorf("%s: %+v", name, c)
		}
		if p.PriorityClassName == "" || p.Containers[0].ReadinessProbe == nil || p.Containers[0].Resources.Requests.Memory().IsZero() {
			t.Errorf("%s: priority, readiness or resources are missing", name)
		}
	}
}
