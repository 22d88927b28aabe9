package check_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	apisecurity "istio.io/api/security/v1beta1"
	istiosecurity "istio.io/client-go/pkg/apis/security/v1"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/meshctl/check"
	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// cluster is an API server without nodes, and what tests write to it.
type cluster struct {
	t      *testing.T
	api    *kubetest.API
	client *kube.Client
	system string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	// Of its own: the checks look at the whole cluster.
	api := kubetest.Start(t, kubetest.Options{})
	client, err := kube.Connect(t.Context(), kube.Flags{Kubeconfig: api.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, api, client, "istio-system"}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) namespace(name string, labels map[string]string) {
	c.t.Helper()
	_, err := c.client.Kubernetes.CoreV1().Namespaces().Create(c.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	c.must(err)
}

// pod makes a running pod; member has it captured.
func (c *cluster) pod(namespace, name string, member bool, change ...func(*corev1.Pod)) {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if member {
		p.Annotations = map[string]string{mesh.RedirectionAnnotation: "enabled"}
	}
	for _, f := range change {
		f(p)
	}
	_, err := c.client.Kubernetes.CoreV1().Pods(namespace).Create(c.t.Context(), p, metav1.CreateOptions{})
	c.must(err)
}

// install makes the objects of a mesh whose parts do not run.
func (c *cluster) install() {
	c.t.Helper()
	c.namespace(c.system, nil)
	ctx, k, ns := c.t.Context(), c.client.Kubernetes, c.system
	template := func(app string) (metav1.LabelSelector, corev1.PodTemplateSpec) {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}},
		}
	}
	selector, pods := template("istiod")
	_, err := k.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "istiod"}, Spec: appsv1.DeploymentSpec{Selector: &selector, Template: pods}}, metav1.CreateOptions{})
	c.must(err)
	for _, name := range []string{"ztunnel", "tulle-agent"} {
		selector, pods := template(name)
		if name == "tulle-agent" {
			pods.Spec.Containers[0].Args = []string{"--kubernetes", "--exclude-namespaces=istio-system, kube-system,aside"}
		}
		_, err := k.AppsV1().DaemonSets(ns).Create(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DaemonSetSpec{Selector: &selector, Template: pods}}, metav1.CreateOptions{})
		c.must(err)
	}
	_, err = k.CoreV1().Services(ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "istiod"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 15012}}}}, metav1.CreateOptions{})
	c.must(err)
	_, err = k.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ztunnel"}}, metav1.CreateOptions{})
	c.must(err)
}

// run checks and returns the results by name.
func (c *cluster) run(opt check.Options) (*check.Report, map[string]check.Result) {
	c.t.Helper()
	emitted := 0
	report := check.Run(c.t.Context(), mesh.InCluster(c.client, c.system), opt, func(check.Result) { emitted++ })
	if emitted != len(report.Results) {
		c.t.Errorf("%d results were told of %d", emitted, len(report.Results))
	}
	byName := map[string]check.Result{}
	for _, r := range report.Results {
		byName[r.Name] = r
	}
	return report, byName
}

// expect looks for a result whose name begins so, its status and what it says.
func expect(t *testing.T, results map[string]check.Result, name string, status check.Status, says ...string) {
	t.Helper()
	for n, r := range results {
		if !strings.HasPrefix(n, name) {
			continue
		}
		text := strings.Join(r.Items, "\n") + "\n" + r.Hint
		if r.Status != status {
			t.Errorf("%s: %s, want %s: %s", n, r.Status, status, text)
		}
		for _, s := range says {
			if !strings.Contains(text, s) {
				t.Errorf("%s does not say %q: %s", n, s, text)
			}
		}
		if r.Status == check.Failed && r.Hint == "" {
			t.Errorf("%s failed without a hint", n)
		}
		return
	}
	t.Errorf("there is no check %q", name)
}

// One API server serves all, since starting it costs the most: first there is no
// mesh, then one whose parts do not run.
func TestOnARealAPIServer(t *testing.T) {
	c := newCluster(t)
	t.Run("a cluster without a mesh", func(t *testing.T) { withoutAMesh(t, c) })
	c.install()
	t.Run("certificates are judged by the time that is left", func(t *testing.T) { certificates(t, c) })
	t.Run("what is labelled wrong", func(t *testing.T) { labelledWrong(t, c) })
	t.Run("nobody is told to join an excluded namespace", func(t *testing.T) { excluded(t, c) })
}

func withoutAMesh(t *testing.T, c *cluster) {
	t.Run("is ready for one", func(t *testing.T) {
		report, results := c.run(check.Options{Pre: true})
		if report.Outcome != check.Passed {
			t.Errorf("%s: %+v", report.Outcome, report.Results)
		}
		expect(t, results, "this user may install", check.Passed)
		expect(t, results, "the Gateway API is there (v", check.Passed)
		expect(t, results, "no other mesh is in the way", check.Passed)
	})
	t.Run("has none", func(t *testing.T) {
		report, results := c.run(check.Options{})
		if report.Outcome != check.Failed {
			t.Errorf("%s", report.Outcome)
		}
		expect(t, results, "the mesh's objects are in namespace istio-system", check.Failed, "there is nothing of it", "meshctl install")
		if _, ok := results["istiod is ready"]; ok {
			t.Error("went on without a mesh")
		}
	})
	t.Run("does not let everybody install", func(t *testing.T) {
		ns := c.api.Namespace(t, nil)
		poor, err := kube.New(t.Context(), c.api.As(ns, "nobody"), "poor", "")
		if err != nil {
			t.Fatal(err)
		}
		report := check.Run(t.Context(), mesh.InCluster(poor, c.system), check.Options{Pre: true}, func(check.Result) {})
		results := map[string]check.Result{}
		for _, r := range report.Results {
			results[r.Name] = r
		}
		expect(t, results, "this user may install", check.Failed, "may not create clusterroles", "cluster-admin")
		// What cannot be asked does not pass.
		expect(t, results, "the Gateway API is there", check.Warned, "cannot tell", "may not get customresourcedefinitions")
	})
}

func labelledWrong(t *testing.T, c *cluster) {
	ambient := map[string]string{mesh.ModeLabel: mesh.ModeAmbient}
	c.namespace("shop", ambient)
	c.namespace("typo", map[string]string{mesh.ModeLabel: "enabled"})
	c.namespace("both", map[string]string{mesh.ModeLabel: mesh.ModeAmbient, "istio-injection": "enabled"})
	c.namespace("routed", map[string]string{mesh.ModeLabel: mesh.ModeAmbient, "istio.io/use-waypoint": "gone"})
	c.namespace("tried", map[string]string{"istio.io/use-waypoint-canary": "next"})
	_, err := c.client.Kubernetes.CoreV1().Services("shop").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{
		"istio.io/use-waypoint-canary": "second", "istio.io/use-waypoint-canary-namespace": "infra"}}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	c.must(err)
	c.pod("shop", "member", true)
	c.pod("shop", "late", false)
	c.pod("shop", "host", false, func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	c.pod("shop", "none", false, func(p *corev1.Pod) { p.Labels[mesh.ModeLabel] = mesh.ModeNone })
	c.pod("shop", "odd", false, func(p *corev1.Pod) { p.Labels[mesh.ModeLabel] = "nnone" })
	c.pod("both", "sidecar", true, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "proxyv2"})
	})
	tcp := corev1.ProtocolTCP
	port := intstr.FromInt32(8080)
	_, err = c.client.Kubernetes.NetworkingV1().NetworkPolicies("shop").Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "only-8080"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}}}}},
	}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.client.Istio.SecurityV1().PeerAuthentications("shop").Create(t.Context(), &istiosecurity.PeerAuthentication{
		ObjectMeta: metav1.ObjectMeta{Name: "strict"},
		Spec:       apisecurity.PeerAuthentication{Mtls: &apisecurity.PeerAuthentication_MutualTLS{Mode: apisecurity.PeerAuthentication_MutualTLS_STRICT}},
	}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.client.Kubernetes.CoreV1().Services("shop").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hook"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "member"}, Ports: []corev1.ServicePort{{Port: 443}}}}, metav1.CreateOptions{})
	c.must(err)
	none := admissionregistrationv1.SideEffectClassNone
	ignore := admissionregistrationv1.Ignore
	_, err = c.client.Kubernetes.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hook"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "orders.shop.example", SideEffects: &none, FailurePolicy: &ignore, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "shop", Name: "hook"}}}},
	}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.client.Kubernetes.CoordinationV1().Leases(c.system).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "istiod-lite-leader"}}, metav1.CreateOptions{})
	c.must(err)

	report, results := c.run(check.Options{})
	if report.Outcome != check.Failed || report.Failed == 0 || report.Warned == 0 {
		t.Errorf("%+v", report)
	}
	expect(t, results, "the mesh's objects are in namespace istio-system", check.Failed, "configmap istio-ca-root-cert is missing")
	expect(t, results, "istiod is ready", check.Failed, "no instance")
	expect(t, results, "labelled pods are in the mesh", check.Failed, "shop/late: it is labelled, but the agent of node n1 has not captured it")
	expect(t, results, "labelled pods have a network of their own", check.Warned, "shop/host")
	expect(t, results, "membership labels say what they mean", check.Warned, "namespace typo: istio.io/dataplane-mode=enabled",
		"pod shop/odd: istio.io/dataplane-mode=nnone; the values are ambient and none, and this one is taken as if it were not there: the label of its namespace decides")
	expect(t, results, "labelled pods are in the mesh", check.Failed, "shop/odd: it is labelled")
	expect(t, results, "no pod has a sidecar besides", check.Warned, "namespace both", "pod both/sidecar has the sidecar istio-proxy")
	expect(t, results, "waypoints that labels name are there", check.Failed, "namespace routed: there is no Gateway routed/gone")
	expect(t, results, "second waypoints that labels name are there", check.Warned, "namespace tried: there is no Gateway tried/next", "service shop/web: there is no Gateway infra/second")
	expect(t, results, "what the API server calls takes plaintext", check.Failed, "webhook orders.shop.example calls shop/hook", "PeerAuthentication shop/strict")
	expect(t, results, "NetworkPolicies let the tunnel through", check.Failed, "shop/only-8080 blocks it for pod member (Ingress)")
	for _, r := range report.Results {
		for _, item := range r.Items {
			if strings.Contains(item, "shop/none") {
				t.Errorf("a pod that stays out on purpose is reported: %s", item)
			}
		}
	}
}

func excluded(t *testing.T, c *cluster) {
	c.namespace("aside", map[string]string{mesh.ModeLabel: mesh.ModeAmbient})
	c.namespace("free", nil)
	c.pod("aside", "labelled", false)
	c.pod("kube-system", "proxy", false)
	c.pod("free", "other", false)
	const setting = "is left out of the mesh by the agents' setting --exclude-namespaces; to change that, set excludedNamespaces to a list without it (`meshctl upgrade --set 'excludedNamespaces=[...]'`)"
	m := mesh.InCluster(c.client, c.system)
	for id, want := range map[[2]string]string{
		{"aside", "labelled"}:    "namespace aside " + setting,
		{"kube-system", "proxy"}: "namespace kube-system " + setting,
		{"free", "other"}:        "neither it nor its namespace has the label istio.io/dataplane-mode=ambient (meshctl namespace join free)",
	} {
		p, err := m.Pod(t.Context(), id[0], id[1])
		if err != nil || p.Outside != want {
			t.Errorf("%v: %q, %v", id, p.Outside, err)
		}
		all, err := m.Pods(t.Context(), id[0])
		if err != nil || len(all) != 1 || all[0].Outside != want {
			t.Errorf("%v in the list: %+v, %v", id, all, err)
		}
	}
	report, results := c.run(check.Options{})
	expect(t, results, "membership labels say what they mean", check.Warned, "namespace aside is labelled ambient, which does nothing: namespace aside "+setting)
	for _, r := range report.Results {
		for _, item := range r.Items {
			if strings.Contains(item, "aside/labelled") {
				t.Errorf("an excluded pod counts as one that is missing: %s: %s", r.Name, item)
			}
		}
	}

	// Who may not read the setting is told the rest.
	_, err := c.client.Kubernetes.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods", "namespaces"}, Verbs: []string{"get", "list"}}}}, metav1.CreateOptions{})
	c.must(err)
	_, err = c.client.Kubernetes.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "free", Name: "reader"}}}, metav1.CreateOptions{})
	c.must(err)
	reader, err := kube.New(t.Context(), c.api.As("free", "reader"), "reader", "")
	c.must(err)
	if p, err := mesh.InCluster(reader, c.system).Pod(t.Context(), "free", "other"); err != nil || !strings.HasPrefix(p.Outside, "neither it nor") {
		t.Errorf("%q, %v", p.Outside, err)
	}
}

func certificates(t *testing.T, c *cluster) {
	for _, tt := range []struct {
		left   time.Duration
		status check.Status
		says   string
	}{{365 * 24 * time.Hour, check.Passed, ""}, {30 * 24 * time.Hour, check.Warned, "ends on"}, {-time.Hour, check.Failed, "ended on"}} {
		t.Run(fmt.Sprint(tt.left), func(t *testing.T) {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"}, Data: map[string]string{"root-cert.pem": rootPEM(t, time.Now().Add(tt.left))}}
			_, err := c.client.Kubernetes.CoreV1().ConfigMaps(c.system).Create(t.Context(), cm, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				c.must(c.client.Kubernetes.CoreV1().ConfigMaps(c.system).Delete(c.t.Context(), cm.Name, metav1.DeleteOptions{}))
			}()
			_, results := c.run(check.Options{})
			expect(t, results, "the root certificate is valid", tt.status, tt.says)
			expect(t, results, "every namespace has the authority's root", check.Failed, "namespace default has no ConfigMap istio-ca-root-cert")
		})
	}
}
