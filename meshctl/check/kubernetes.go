package check

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

func (r *runner) kubernetes() {
	r.category = "kubernetes"
	v := r.cluster.Client.Version
	r.pass(fmt.Sprintf("the API server %s answers (%s)", r.cluster.Client.Config.Host, v.GitVersion))
	name := fmt.Sprintf("its version is at least 1.%d", minor)
	if n, err := strconv.Atoi(strings.TrimRight(v.Minor, "+")); err == nil && v.Major == "1" && n < minor {
		r.fail(name, "upgrade the cluster: the definitions of the Gateway API need newer validation rules", "it is "+v.GitVersion)
		return
	}
	r.pass(name)
	r.clocks()
}

// clocks compares the nodes' clocks, as their leases show them, with the API
// server's, and that with ours.
func (r *runner) clocks() {
	const name = "clocks agree within a minute"
	server, err := r.serverTime()
	if err != nil {
		r.broken(name, err)
		return
	}
	nodes, err := r.cluster.Client.Kubernetes.CoreV1().Nodes().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	leases, err := r.cluster.Client.Kubernetes.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	var off []string
	if d := time.Since(server); d.Abs() > clockSkew {
		off = append(off, fmt.Sprintf("this machine's is %s the API server's", ahead(d)))
	}
	for _, l := range leases.Items {
		i := slices.IndexFunc(nodes.Items, func(n corev1.Node) bool { return n.Name == l.Name })
		if i < 0 || !nodeReady(&nodes.Items[i]) || l.Spec.RenewTime == nil {
			continue
		}
		// A lease was renewed some seconds ago: older is normal, newer is not.
		d := l.Spec.RenewTime.Sub(server)
		if d > clockSkew || d < -leaseAge-clockSkew {
			off = append(off, fmt.Sprintf("node %s's is %s the API server's", l.Name, ahead(d)))
		}
	}
	r.unless(off, Failed, name, "set the clocks (chrony, systemd-timesyncd): certificates are refused before their time and after it")
}

func ahead(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%v behind", -d.Round(time.Second))
	}
	return fmt.Sprintf("%v ahead of", d.Round(time.Second))
}

// serverTime is the Date of an answer.
func (r *runner) serverTime() (time.Time, error) {
	client, err := rest.HTTPClientFor(r.cluster.Client.Config)
	if err != nil {
		return time.Time{}, err
	}
	base, _, err := rest.DefaultServerUrlFor(r.cluster.Client.Config)
	if err != nil {
		return time.Time{}, err
	}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, base.JoinPath("/version").String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return time.Time{}, r.cluster.Client.Explain(err)
	}
	defer res.Body.Close()
	t, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("the API server does not tell its time: %w", err)
	}
	return t, nil
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// right is one thing that an installer must be allowed to do.
type right struct {
	group, resource string
	namespaced      bool
}

var rights = []right{
	{"", "namespaces", false},
	{"apiextensions.k8s.io", "customresourcedefinitions", false},
	{"rbac.authorization.k8s.io", "clusterroles", false},
	{"rbac.authorization.k8s.io", "clusterrolebindings", false},
	{"scheduling.k8s.io", "priorityclasses", false},
	{"", "serviceaccounts", true},
	{"", "services", true},
	{"", "configmaps", true},
	{"apps", "deployments", true},
	{"apps", "daemonsets", true},
	{"policy", "poddisruptionbudgets", true},
	{"networking.k8s.io", "networkpolicies", true},
	{"rbac.authorization.k8s.io", "roles", true},
	{"rbac.authorization.k8s.io", "rolebindings", true},
}

func (r *runner) preinstall() {
	r.category = "before the installation"
	r.installerRights()
	client := r.cluster.Client
	const clean = "no other mesh is in the way"
	var others []string
	for _, kind := range []string{mesh.Istiod, mesh.Ztunnel, mesh.Agent} {
		all, err := r.mesh.Components(r.ctx, kind)
		if err != nil {
			r.broken(clean, err)
			return
		}
		if len(all) > 0 {
			others = append(others, fmt.Sprintf("%s %s runs in %s", kind, all[0].Version, r.cluster.System))
		}
	}
	pods, err := client.Kubernetes.CoreV1().Pods("").List(r.ctx, metav1.ListOptions{LabelSelector: "k8s-app=istio-cni-node", Limit: 1})
	if err == nil && len(pods.Items) > 0 {
		others = append(others, "Istio's CNI agent runs in "+pods.Items[0].Namespace)
	}
	r.unless(others, Warned, clean, "`meshctl upgrade` goes on from a mesh that was installed by meshctl; remove another one first")

	const enforced = "the namespace admits privileged pods"
	ns, err := client.Kubernetes.CoreV1().Namespaces().Get(r.ctx, r.cluster.System, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		r.pass(enforced)
	case err != nil:
		r.broken(enforced, client.Explain(err))
	default:
		level := ns.Labels["pod-security.kubernetes.io/enforce"]
		if level != "" && level != "privileged" {
			r.fail(enforced, "kubectl label namespace "+r.cluster.System+" pod-security.kubernetes.io/enforce=privileged --overwrite: ztunnel and tulle-agent enter the pods' network namespaces",
				"namespace "+r.cluster.System+" enforces "+level)
		} else {
			r.pass(enforced)
		}
	}
	const linux = "every node runs Linux"
	nodes, err := client.Kubernetes.CoreV1().Nodes().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(linux, client.Explain(err))
		return
	}
	var strange []string
	for _, n := range nodes.Items {
		if os := n.Status.NodeInfo.OperatingSystem; os != "linux" {
			strange = append(strange, fmt.Sprintf("node %s runs %s: its pods stay outside the mesh", n.Name, os))
		}
	}
	r.unless(strange, Warned, linux, "")
}

// installerRights asks the API server what this user may do.
func (r *runner) installerRights() {
	const name = "this user may install"
	var missing []string
	for _, x := range rights {
		for _, verb := range []string{"create", "patch", "get"} {
			attributes := &authorizationv1.ResourceAttributes{Verb: verb, Group: x.group, Resource: x.resource}
			where := ""
			if x.namespaced {
				attributes.Namespace = r.cluster.System
				where = " in " + r.cluster.System
			}
			review, err := r.cluster.Client.Kubernetes.AuthorizationV1().SelfSubjectAccessReviews().Create(r.ctx,
				&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes}}, metav1.CreateOptions{})
			if err != nil {
				r.broken(name, r.cluster.Client.Explain(err))
				return
			}
			if !review.Status.Allowed {
				missing = append(missing, fmt.Sprintf("may not %s %s%s", verb, x.resource, where))
			}
		}
	}
	r.unless(missing, Failed, name, "use a context whose user is cluster-admin, or ask for these rights")
}

// definition is one kind that the mesh reads.
type definition struct{ name, version string }

var gatewayDefinitions = []definition{
	{"gatewayclasses.gateway.networking.k8s.io", "v1"}, {"gateways.gateway.networking.k8s.io", "v1"},
	{"httproutes.gateway.networking.k8s.io", "v1"}, {"grpcroutes.gateway.networking.k8s.io", "v1"},
}

var istioDefinitions = []definition{
	{"authorizationpolicies.security.istio.io", "v1"}, {"peerauthentications.security.istio.io", "v1"},
	{"serviceentries.networking.istio.io", "v1"}, {"workloadentries.networking.istio.io", "v1"},
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definitions checks the CRDs of the Gateway API and of Istio.
func (r *runner) definitions() {
	r.category = "definitions"
	hint := "`meshctl install` (or upgrade) brings them; kubectl apply of the Gateway API's standard channel does too"
	status := Failed
	if r.opt.Pre {
		status, hint = Warned, "`meshctl install` brings them"
	}
	check := func(name string, all []definition) (bundle, channel string) {
		var missing []string
		for _, d := range all {
			crd, err := r.cluster.Client.Dynamic.Resource(crdResource).Get(r.ctx, d.name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				missing = append(missing, d.name+" is missing")
				continue
			case err != nil:
				r.broken(name, r.cluster.Client.Explain(err))
				return "", ""
			case !serves(crd, d.version):
				missing = append(missing, d.name+" does not serve "+d.version)
			}
			if v := crd.GetAnnotations()["gateway.networking.k8s.io/bundle-version"]; v != "" {
				bundle, channel = v, crd.GetAnnotations()["gateway.networking.k8s.io/channel"]
			}
		}
		if bundle != "" && len(missing) == 0 {
			name += fmt.Sprintf(" (%s, channel %s)", bundle, channel)
		}
		r.unless(missing, status, name, hint)
		return bundle, channel
	}
	check("the Gateway API is there", gatewayDefinitions)
	check("Istio's kinds of policies and entries are there", istioDefinitions)
}

func serves(crd *unstructured.Unstructured, version string) bool {
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok && m["name"] == version && m["served"] == true {
			return true
		}
	}
	return false
}
