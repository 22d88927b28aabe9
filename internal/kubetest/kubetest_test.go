package kubetest_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tulle-mesh/tulle/internal/kubetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }

// pod puts a running pod of a service account on a node, objects all of them.
func pod(t *testing.T, api *kubetest.API, namespace, account, node string) *corev1.Pod {
	t.Helper()
	ctx, core := t.Context(), api.Client.CoreV1()
	if _, err := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	p, err := core.Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTokensAreBoundToPodAndNode(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	p := pod(t, api, api.Namespace(t, nil), "web", "n1")
	token, err := api.Token(t.Context(), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Audience   []string `json:"aud"`
		Kubernetes struct {
			Pod  struct{ Name, UID string }
			Node struct{ Name string }
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if k := claims.Kubernetes; k.Pod.Name != "web" || k.Pod.UID != string(p.UID) || k.Node.Name != "n1" || claims.Audience[0] != kubetest.CAAudience {
		t.Errorf("claims %s", payload)
	}
	review, err := api.Client.AuthenticationV1().TokenReviews().Create(t.Context(),
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{kubetest.CAAudience}}}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated {
		t.Errorf("review %+v, %v", review, err)
	}
}

func TestCustomResourcesAreEstablished(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	client, err := dynamic.NewForConfig(api.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, gvr := range []schema.GroupVersionResource{
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"},
		{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
		{Group: "networking.istio.io", Version: "v1", Resource: "serviceentries"},
	} {
		if _, err := client.Resource(gvr).List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("list %s: %v", gvr, err)
		}
	}
}

func TestRightsAreThoseOfTheAccount(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	client, err := kubernetes.NewForConfig(api.As("default", "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an account without a role may list secrets: %v", err)
	}
}

func TestTheControllerManagerWritesSlicesAndStateOutlivesARestart(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{ControllerManager: true})
	ctx := t.Context()
	config, err := clientcmd.BuildConfigFromFlags("", api.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		slices, err := client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(slices.Items) == 1
	}, "the EndpointSlice")
	if err := api.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Services("default").Get(ctx, "web", metav1.GetOptions{}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("TULLE_CLUSTER_BIN", filepath.Join(os.TempDir(), "not-there"))
	if _, err := kubetest.Binaries(); err == nil || !strings.Contains(err.Error(), "not-there/etcd") || !strings.Contains(err.Error(), "TULLE_CLUSTER_BIN") {
		t.Errorf("got %v", err)
	}
}

func await(t *testing.T, done func() bool, what string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
