package check

import (
	"cmp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// installation checks that the mesh's objects exist; false stops the run.
func (r *runner) installation() bool {
	r.category = "installation"
	k, ns := r.cluster.Client.Kubernetes, r.cluster.System
	get := metav1.GetOptions{}
	objects := []struct {
		kind, name string
		get        func() error
	}{
		{"namespace", ns, func() error { _, err := k.CoreV1().Namespaces().Get(r.ctx, ns, get); return err }},
		{"deployment", mesh.Istiod, func() error { _, err := k.AppsV1().Deployments(ns).Get(r.ctx, mesh.Istiod, get); return err }},
		{"service", mesh.Istiod, func() error { _, err := k.CoreV1().Services(ns).Get(r.ctx, mesh.Istiod, get); return err }},
		{"daemonset", mesh.Ztunnel, func() error { _, err := k.AppsV1().DaemonSets(ns).Get(r.ctx, mesh.Ztunnel, get); return err }},
		{"daemonset", mesh.Agent, func() error { _, err := k.AppsV1().DaemonSets(ns).Get(r.ctx, mesh.Agent, get); return err }},
		{"service account", mesh.Ztunnel, func() error { _, err := k.CoreV1().ServiceAccounts(ns).Get(r.ctx, mesh.Ztunnel, get); return err }},
		{"configmap", rootConfigMap, func() error { _, err := k.CoreV1().ConfigMaps(ns).Get(r.ctx, rootConfigMap, get); return err }},
	}
	name := "the mesh's objects are in namespace " + ns
	var missing []string
	for _, o := range objects {
		err := o.get()
		switch {
		case apierrors.IsNotFound(err):
			missing = append(missing, o.kind+" "+o.name+" is missing")
		case err != nil:
			r.broken(name, r.cluster.Client.Explain(err))
			return false
		}
	}
	hint := "`meshctl install` makes what is missing"
	if len(missing) == len(objects) {
		hint = "the mesh is not installed: `meshctl check --pre`, then `meshctl install`; --istio-namespace names another namespace"
		r.fail(name, hint, "there is nothing of it")
		return false
	}
	r.unless(missing, Failed, name, hint)
	return true
}

// rootConfigMap is where every namespace finds the authority's root.
const rootConfigMap = "istio-ca-root-cert"

// compareVersions tells why one version is not the other; empty when they are equal
// or one is a build without a version.
func compareVersions(own, other string) string {
	if own == "" || own == "dev" || other == "dev" || own == other {
		return ""
	}
	return cmp.Or(other, "unknown") + ", meshctl is " + own
}
