package rootcert_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/rootcert"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheRootIsInEveryNamespaceAndStaysThere(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{ControllerManager: true, Controllers: []string{"namespace-controller"}})
	// The rights of the manifests: one name, and no update.
	_, err := api.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "roots"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{rootcert.Name}, Verbs: []string{"list", "watch", "create", "patch"}},
	}}, metav1.CreateOptions{})
	must(t, err)
	_, err = api.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "roots"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "roots"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "istiod", Namespace: "default"}}}, metav1.CreateOptions{})
	must(t, err)
	config := api.As("default", "istiod")
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	meta, err := metadata.NewForConfig(config)
	must(t, err)
	reg := prometheus.NewRegistry()
	d, err := rootcert.New(rootcert.Config{Client: client, Metadata: meta, Bundle: func() []byte { return []byte("the roots") }, Logger: zaptest.NewLogger(t), Registerer: reg})
	must(t, err)

	const many = 30
	var namespaces []string
	for range many {
		namespaces = append(namespaces, api.Namespace(t, nil))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	has := func(ns string) bool {
		cm, err := api.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), rootcert.Name, metav1.GetOptions{})
		return err == nil && cm.Data[rootcert.Key] == "the roots"
	}
	await := func(what string, cond func() bool) {
		t.Helper()
		end := time.Now().Add(bound)
		for !cond() {
			if time.Now().After(end) {
				t.Fatalf("waited %v for %s", bound, what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for _, ns := range namespaces {
		await("the root in "+ns, func() bool { return has(ns) })
	}
	fresh := api.Namespace(t, nil)
	await("the root in a new namespace", func() bool { return has(fresh) })

	// Deleted, changed by hand, spoilt together with what is not ours.
	maps := api.Client.CoreV1().ConfigMaps(fresh)
	must(t, maps.Delete(t.Context(), rootcert.Name, metav1.DeleteOptions{}))
	await("the deleted root", func() bool { return has(fresh) })
	_, err = maps.Patch(t.Context(), rootcert.Name, types.MergePatchType, []byte(`{"data":{"root-cert.pem":"forged","mine":"x"}}`), metav1.PatchOptions{FieldManager: "somebody"})
	must(t, err)
	await("the changed root", func() bool { return has(fresh) })
	cm, err := maps.Get(t.Context(), rootcert.Name, metav1.GetOptions{})
	must(t, err)
	if cm.Data["mine"] != "x" {
		t.Error("another key was taken away")
	}

	// A namespace that ends is left alone, and nothing is tried over and over.
	must(t, api.Client.CoreV1().Namespaces().Delete(t.Context(), fresh, metav1.DeleteOptions{}))
	await("the namespace to go", func() bool {
		_, err := api.Client.CoreV1().Namespaces().Get(t.Context(), fresh, metav1.GetOptions{})
		return err != nil
	})
	_, err = api.Client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
	must(t, err)
	if n := failures(t, reg); n > 0 {
		t.Errorf("%v writes failed", n)
	}
}

func failures(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	total := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if fmt.Sprint(m.GetLabel()) != "" && m.GetLabel()[0].GetValue() == "error" {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}
