package waypoint_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/waypoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }

func connect(t *testing.T) (*kube.Client, string) {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{})
	namespace := api.Namespace(t, nil)
	client, err := kube.New(t.Context(), api.Config, "", namespace)
	if err != nil {
		t.Fatal(err)
	}
	return client, namespace
}

// says has the control plane's part be played.
func says(t *testing.T, client *kube.Client, namespace, name string, status metav1.ConditionStatus, message string) {
	t.Helper()
	gateways := client.Gateway.GatewayV1().Gateways(namespace)
	gw, err := gateways.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gw.Status.Conditions = []metav1.Condition{{Type: "Programmed", Status: status, Reason: "Programmed", Message: message, ObservedGeneration: gw.Generation, LastTransitionTime: metav1.Now()}}
	if _, err := gateways.UpdateStatus(t.Context(), gw, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAWaypointIsMadeUsedListedAndRemoved(t *testing.T) {
	client, namespace := connect(t)
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if err := waypoint.Apply(t.Context(), client, waypoint.Options{For: "all", Enroll: true, Say: say}); err != nil {
		t.Fatal(err)
	}
	if len(said) != 3 || said[0] != "waypoint "+namespace+"/waypoint applied" {
		t.Errorf("said %q", said)
	}
	ns, err := client.Kubernetes.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil || ns.Labels["istio.io/use-waypoint"] != "waypoint" {
		t.Errorf("labels %v, %v", ns.Labels, err)
	}
	err = waypoint.Apply(t.Context(), client, waypoint.Options{Name: "second", Enroll: true})
	if err == nil || !strings.Contains(err.Error(), "--overwrite") {
		t.Errorf("another waypoint for the namespace: %v", err)
	}
	if list, err := waypoint.List(t.Context(), client, namespace); err != nil || len(list) != 1 {
		t.Errorf("what was refused was made: %v, %v", list, err)
	}
	if err := waypoint.Apply(t.Context(), client, waypoint.Options{Name: "second", Enroll: true, Overwrite: true, Revision: "canary"}); err != nil {
		t.Error(err)
	}
	// Twice is once.
	if err := waypoint.Apply(t.Context(), client, waypoint.Options{For: "all"}); err != nil {
		t.Error(err)
	}
	list, err := waypoint.List(t.Context(), client, namespace)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, w := range list {
		seen = append(seen, strings.Join([]string{w.Name, w.Revision, w.TrafficType, w.Programmed}, " "))
	}
	if want := []string{"second canary service Unknown", "waypoint default all Unknown"}; !slices.Equal(seen, want) {
		t.Errorf("listed %q", seen)
	}
	gone, err := waypoint.Delete(t.Context(), client, namespace, nil, true, "canary")
	if err != nil || !slices.Equal(gone, []string{"second"}) {
		t.Errorf("removed of one revision: %v, %v", gone, err)
	}
	if gone, err := waypoint.Delete(t.Context(), client, namespace, []string{"waypoint", "other"}, false, ""); err == nil || !slices.Equal(gone, []string{"waypoint"}) {
		t.Errorf("removed by name: %v, %v", gone, err)
	}
}

func TestWhoUsesAWaypointIsKnown(t *testing.T) {
	client, namespace := connect(t)
	if err := waypoint.Apply(t.Context(), client, waypoint.Options{Enroll: true}); err != nil {
		t.Fatal(err)
	}
	for name, labels := range map[string]map[string]string{
		"web":    {"istio.io/use-waypoint": "waypoint"},
		"tried":  {"istio.io/use-waypoint-canary": "waypoint"},
		"away":   {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "elsewhere"},
		"others": {"istio.io/use-waypoint": "second"},
	} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := client.Kubernetes.CoreV1().Services(namespace).Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	users, err := waypoint.Users(t.Context(), client, namespace, "waypoint")
	if want := []string{"namespace " + namespace, "service " + namespace + "/tried", "service " + namespace + "/web"}; err != nil || !slices.Equal(users, want) {
		t.Errorf("%q, %v, want %q", users, err, want)
	}
}

func TestStatusWaitsAndSaysWhatIsMissing(t *testing.T) {
	client, namespace := connect(t)
	if err := waypoint.Apply(t.Context(), client, waypoint.Options{}); err != nil {
		t.Fatal(err)
	}
	list, err := waypoint.Status(t.Context(), client, "", nil, 0)
	if err == nil || len(list) != 1 || !strings.Contains(err.Error(), "meshctl check") {
		t.Errorf("without a control plane: %v, %v", list, err)
	}
	says(t, client, namespace, "waypoint", metav1.ConditionFalse, "no image")
	if _, err := waypoint.Status(t.Context(), client, namespace, []string{"waypoint"}, 0); err == nil || !strings.Contains(err.Error(), "no image") {
		t.Errorf("not ready: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := waypoint.Status(t.Context(), client, namespace, nil, time.Minute)
		done <- err
	}()
	says(t, client, namespace, "waypoint", metav1.ConditionTrue, "ready")
	if err := <-done; err != nil {
		t.Errorf("ready: %v", err)
	}
	if list, err := waypoint.List(t.Context(), client, "no-such-namespace"); err == nil || !strings.Contains(err.Error(), "no namespace no-such-namespace") {
		t.Errorf("a namespace that is not there: %v, %v", list, err)
	}
	if _, err := waypoint.Status(t.Context(), client, namespace, []string{"nowhere"}, time.Minute); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestMistakesAreRefusedBeforeAnythingIsAsked(t *testing.T) {
	for _, o := range []waypoint.Options{{For: "services"}, {Name: "none"}, {Overwrite: true}, {Name: "A_b"}, {Name: "1st"}, {Namespace: "Shop"}, {Revision: "a b"}} {
		if err := o.Check(); err == nil || !strings.HasPrefix(err.Error(), "--") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
