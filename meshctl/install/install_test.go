package install_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/install"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }

// patience bounds every wait of these tests.
const patience = 2 * time.Minute

// server is a Kubernetes without nodes: what is applied is there, and no pod runs.
func server(t *testing.T) *kubetest.API {
	return kubetest.Shared(t, kubetest.Options{ControllerManager: true, WithoutCRDs: true})
}

type fixture struct {
	*install.Mesh
	t    *testing.T
	said []string
}

// mesh returns one that is installed nowhere yet, in a namespace of its own.
func mesh(t *testing.T, api *kubetest.API) *fixture {
	t.Helper()
	client, err := kube.New(t.Context(), api.Config, "", "")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t}
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, t.Name()))
	f.Mesh = &install.Mesh{Client: client, Namespace: name[:min(len(name), 50)], Say: func(line string) { f.said = append(f.said, line) }}
	return f
}

func (f *fixture) install(opt install.Options) *install.Report {
	f.t.Helper()
	if opt.Version == "" {
		opt.Version = "1.2.0"
	}
	report, err := f.Install(f.t.Context(), opt)
	if err != nil {
		f.t.Fatal(err)
	}
	return report
}

func values(t *testing.T, assignments ...string) manifests.Values {
	t.Helper()
	out := manifests.Values{}
	for _, a := range assignments {
		v, err := manifests.Set(a)
		if err != nil {
			t.Fatal(err)
		}
		out = manifests.Override(out, v)
	}
	return out
}

func changes(r *install.Report, action install.Action) string {
	var list []string
	for _, c := range r.Changes {
		if c.Action == action {
			list = append(list, strings.TrimSpace(c.Ref.String()+" "+strings.Join(c.Fields, ", ")))
		}
	}
	return strings.Join(list, "; ")
}

func (f *fixture) deployment() *appsv1.Deployment {
	f.t.Helper()
	d, err := f.Client.Kubernetes.AppsV1().Deployments(f.Namespace).Get(f.t.Context(), "istiod", metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestInstallingTwiceChangesNothing(t *testing.T) {
	f := mesh(t, server(t))
	first := f.install(install.Options{Values: values(t, "istiod.replicas=3", "imagePullSecrets=[{name: registry}]")})
	if first.Same() || first.From != "" || !strings.Contains(changes(first, install.Created), "DaemonSet "+f.Namespace+"/ztunnel") {
		t.Errorf("first: %+v", first)
	}
	if got := *f.deployment().Spec.Replicas; got != 3 {
		t.Errorf("%d replicas", got)
	}
	second := f.install(install.Options{Values: values(t, "istiod.replicas=3", "imagePullSecrets=[{name: registry}]")})
	if !second.Same() {
		t.Errorf("second: created %s; changed %s; removed %s", changes(second, install.Created), changes(second, install.Changed), changes(second, install.Removed))
	}
	third := f.install(install.Options{})
	if got := changes(third, install.Changed); !strings.Contains(got, "spec.replicas: 3 -> 2") || !strings.Contains(got, "imagePullSecrets") {
		t.Errorf("third: %s", got)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	f := mesh(t, server(t))
	report := f.install(install.Options{DryRun: true})
	if !strings.Contains(changes(report, install.Created), "Deployment "+f.Namespace+"/istiod") {
		t.Errorf("%+v", report)
	}
	if _, err := f.Client.Kubernetes.CoreV1().Namespaces().Get(t.Context(), f.Namespace, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
	f.install(install.Options{})
	report = f.install(install.Options{DryRun: true, Values: values(t, "carrier=h3")})
	if got := changes(report, install.Changed); !strings.Contains(got, "DaemonSet "+f.Namespace+"/ztunnel") || !strings.Contains(got, "--carrier=auto -> --carrier=h3") {
		t.Errorf("changed: %s", got)
	}
	if report := f.install(install.Options{DryRun: true}); !report.Same() {
		t.Errorf("changed: %s", changes(report, install.Changed))
	}
}

func TestMistakesAreRefusedBeforeAnythingIsThere(t *testing.T) {
	f := mesh(t, server(t))
	_, err := f.Install(t.Context(), install.Options{Version: "1.2.0", Values: values(t, "istiod.replica=3")})
	if err == nil || !strings.Contains(err.Error(), "did you mean istiod.replicas?") {
		t.Error(err)
	}
	if there, err := f.Installed(t.Context()); there || err != nil {
		t.Errorf("installed: %v, %v", there, err)
	}
}

func TestAFieldOfSomebodyElseIsNamedWithItsOwner(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	_, err := f.Client.Kubernetes.AppsV1().Deployments(f.Namespace).Patch(t.Context(), "istiod", types.StrategicMergePatchType,
		[]byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Install(t.Context(), install.Options{Version: "1.2.0"})
	for _, want := range []string{"Deployment " + f.Namespace + "/istiod", ".spec.replicas (somebody)", "--force-conflicts"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if got := *f.deployment().Spec.Replicas; got != 5 {
		t.Errorf("%d replicas", got)
	}
	f.install(install.Options{ForceConflicts: true})
	if got := *f.deployment().Spec.Replicas; got != 2 {
		t.Errorf("%d replicas by force", got)
	}
}

// TestFieldsThatNobodyAskedForStay holds what others add: an annotation of a restart.
func TestFieldsThatNobodyAskedForStay(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	_, err := f.Client.Kubernetes.AppsV1().Deployments(f.Namespace).Patch(t.Context(), "istiod", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`), metav1.PatchOptions{FieldManager: "kubectl"})
	if err != nil {
		t.Fatal(err)
	}
	if report := f.install(install.Options{}); !report.Same() {
		t.Errorf("changed: %s", changes(report, install.Changed))
	}
	if f.deployment().Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] != "now" {
		t.Error("the annotation is gone")
	}
}

func TestWhatAnEarlierVersionHadIsRemoved(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	report := f.install(install.Options{Values: values(t, "networkPolicy.enabled=false")})
	if got, want := changes(report, install.Removed), "NetworkPolicy "+f.Namespace+"/istiod; NetworkPolicy "+f.Namespace+"/ztunnel"; got != want {
		t.Errorf("removed: %s", got)
	}
	if report := f.install(install.Options{Values: values(t, "networkPolicy.enabled=false")}); !report.Same() {
		t.Errorf("removed again: %s", changes(report, install.Removed))
	}
}

func TestAnotherControlPlaneOfTheSameNameStays(t *testing.T) {
	api := server(t)
	for label, want := range map[string]string{"": "uninstall it first", "helm": "helm uninstall old"} {
		f := mesh(t, api)
		f.Namespace = api.Namespace(t, nil)
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "istiod"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 15012}}}}
		if label == "helm" {
			service.Labels = map[string]string{"app.kubernetes.io/part-of": "tulle"}
			service.Annotations = map[string]string{"meta.helm.sh/release-name": "old"}
		}
		if _, err := f.Client.Kubernetes.CoreV1().Services(f.Namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := f.Install(t.Context(), install.Options{Version: "1.2.0"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Service "+f.Namespace+"/istiod") {
			t.Errorf("%q: %v", label, err)
		}
		if _, err := f.Client.Kubernetes.AppsV1().Deployments(f.Namespace).Get(t.Context(), "istiod", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%q: the deployment: %v", label, err)
		}
	}
}

func TestAnUpgradeKeepsTheValuesAndRefusesToGoBack(t *testing.T) {
	f := mesh(t, server(t))
	if _, err := f.Upgrade(t.Context(), install.Options{Version: "1.2.0"}); !errors.Is(err, install.ErrNotInstalled) {
		t.Errorf("nothing installed: %v", err)
	}
	f.install(install.Options{Values: values(t, "istiod.replicas=4", "network=")})
	if _, err := f.Install(t.Context(), install.Options{Version: "1.3.0"}); err == nil || !strings.Contains(err.Error(), "meshctl upgrade") {
		t.Errorf("install of another version: %v", err)
	}
	report, err := f.Upgrade(t.Context(), install.Options{Version: "1.3.0", Values: values(t, "carrier=h3")})
	if err != nil {
		t.Fatal(err)
	}
	got := changes(report, install.Changed)
	for _, want := range []string{"ghcr.io/tulle-mesh/istiod-lite:1.2.0 -> ghcr.io/tulle-mesh/istiod-lite:1.3.0", "--carrier=h3"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if report.From != "1.2.0" || strings.Contains(got, "replicas") {
		t.Errorf("from %s: %s", report.From, got)
	}
	for _, version := range []string{"1.2.9", "1.5.0", "2.0.0"} {
		if _, err := f.Upgrade(t.Context(), install.Options{Version: version}); !errors.Is(err, install.ErrVersions) {
			t.Errorf("to %s: %v", version, err)
		}
	}
	if _, err := f.Upgrade(t.Context(), install.Options{Version: "1.2.9", Force: true}); err != nil {
		t.Error(err)
	}
	if report, err := f.Upgrade(t.Context(), install.Options{Version: "1.2.9"}); err != nil || !report.Same() {
		t.Errorf("again: %v, %s", err, changes(report, install.Changed))
	}
}

func TestAnUpgradeThatIsInterruptedSaysHowToGoOn(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	f.Say = func(string) { interrupt() }
	_, err := f.Upgrade(ctx, install.Options{Version: "1.3.0"})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted; what was applied stays, and the same command goes on from there") {
		t.Error(err)
	}
	if _, err := f.Upgrade(t.Context(), install.Options{Version: "1.3.0"}); err != nil {
		t.Errorf("going on: %v", err)
	}
}

// TestWhatIsNotReadyIsSaidWithItsReason plays the kubelet.
func TestWhatIsNotReadyIsSaidWithItsReason(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pods := f.Client.Kubernetes.CoreV1().Pods(f.Namespace)
	var list *corev1.PodList
	for {
		var err error
		if list, err = pods.List(ctx, metav1.ListOptions{LabelSelector: "app=istiod"}); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) == 2 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i := range list.Items {
		p := &list.Items[i]
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "discovery", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: fmt.Sprintf("no image for pod %d", i)}}}}
		if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.Install(ctx, install.Options{Version: "1.2.0", Wait: 5 * time.Second})
	for _, want := range []string{"istiod: 0/2 ready", "2 pods, such as istiod-", "ImagePullBackOff: no image for pod", "ztunnel: 0/0 ready", "no node suits it: its nodeSelector asks for kubernetes.io/os=linux"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if said := strings.Join(f.said, "\n"); strings.Count(said, "ImagePullBackOff") != 1 {
		t.Errorf("said:\n%s", said)
	}

	for i := range list.Items {
		p, err := pods.Get(ctx, list.Items[i].Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "discovery",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 1, Reason: "Error", Message: "it starts\nistiod-lite: no such place\n"}}}}
		if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	interrupted, interrupt := context.WithCancel(ctx)
	defer interrupt()
	f.Say = func(line string) {
		if strings.HasPrefix(line, "istiod: ") {
			interrupt()
		}
	}
	_, err = f.Install(interrupted, install.Options{Version: "1.2.0", Wait: patience})
	for _, want := range []string{"interrupted, and not ready yet", "ends again and again (exit status 1: istiod-lite: no such place)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestUninstallTakesEverythingAndNothingElse(t *testing.T) {
	api := server(t)
	f := mesh(t, api)
	f.install(install.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	core := f.Client.Kubernetes.CoreV1()
	// What istiod would have made, and a ConfigMap of that name that is another's.
	other := api.Namespace(t, nil)
	for namespace, manager := range map[string]string{f.Namespace: "istiod-lite", other: "pilot-discovery"} {
		_, err := core.ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"}, Data: map[string]string{"root-cert.pem": "x"}}, metav1.CreateOptions{FieldManager: manager})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := core.Secrets(f.Namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-secret"}}, metav1.CreateOptions{FieldManager: "istiod-lite"}); err != nil {
		t.Fatal(err)
	}
	for name, labels := range map[string]map[string]string{
		"made":  {"gateway.istio.io/managed": "istio.io-mesh-controller", "app.kubernetes.io/part-of": "tulle"},
		"other": {"gateway.istio.io/managed": "istio.io-mesh-controller"},
	} {
		if _, err := core.Services(other).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 15008}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Client.Gateway.GatewayV1().Gateways(other).Create(ctx, &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "waypoint"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint", Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008, Protocol: "HBONE"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// No kubelet ends them.
	if err := core.Pods(f.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}

	planned, err := f.Uninstall(ctx, install.UninstallOptions{DryRun: true, Wait: patience})
	if err != nil || !strings.Contains(changes(planned, install.Removed), "DaemonSet "+f.Namespace+"/ztunnel") {
		t.Fatalf("plan: %v %+v", err, planned)
	}
	f.deployment()

	report, err := f.Uninstall(ctx, install.UninstallOptions{Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	removed := changes(report, install.Removed)
	if plan := changes(planned, install.Removed); plan != removed {
		t.Errorf("planned:\n%s\nremoved:\n%s", plan, removed)
	}
	agent, ztunnel, istiod, role := strings.Index(removed, "DaemonSet "+f.Namespace+"/tulle-agent"), strings.Index(removed, "DaemonSet "+f.Namespace+"/ztunnel"),
		strings.Index(removed, "Deployment "+f.Namespace+"/istiod"), strings.Index(removed, "ClusterRole ")
	if agent != 0 || ztunnel < agent || istiod < ztunnel || role < istiod {
		t.Errorf("order: %s", removed)
	}
	if kept := changes(report, install.Kept); !strings.Contains(kept, "Secret "+f.Namespace+"/istio-ca-secret") || !strings.Contains(kept, fmt.Sprintf("CustomResourceDefinition (%d)", len(manifests.CRDs()))) {
		t.Errorf("kept: %s", kept)
	}
	if kept := changes(report, install.Kept); !strings.Contains(kept, "Gateway */*") {
		t.Errorf("kept: %s", kept)
	}
	if _, err := core.ConfigMaps(f.Namespace).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the root: %v", err)
	}
	if _, err := core.ConfigMaps(other).Get(ctx, "istio-ca-root-cert", metav1.GetOptions{}); err != nil {
		t.Errorf("another's root: %v", err)
	}
	if _, err := core.Services(other).Get(ctx, "made", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was made for a waypoint: %v", err)
	}
	if _, err := core.Services(other).Get(ctx, "other", metav1.GetOptions{}); err != nil {
		t.Errorf("another control plane's waypoint: %v", err)
	}
	if there, err := f.Installed(ctx); there || err != nil {
		t.Errorf("installed: %v %v", there, err)
	}
	if _, err := f.Uninstall(ctx, install.UninstallOptions{Wait: patience}); !errors.Is(err, install.ErrNotInstalled) {
		t.Errorf("again: %v", err)
	}

	// Again, and with everything. The namespace goes, since nothing of others is in it.
	f.install(install.Options{})
	if err := core.Pods(f.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	report, err = f.Uninstall(ctx, install.UninstallOptions{Wait: patience, Purge: true})
	if err != nil {
		t.Fatal(err)
	}
	if removed := changes(report, install.Removed); !strings.Contains(removed, "Secret "+f.Namespace+"/istio-ca-secret") {
		t.Errorf("removed: %s", removed)
	}
	// The first uninstallation forgot who made it; that errs on the safe side.
	if kept := changes(report, install.Kept); !strings.Contains(kept, "Namespace "+f.Namespace) {
		t.Errorf("kept: %s", kept)
	}
}

func TestALostInventoryDoesNotKeepAMeshFromBeingUninstalled(t *testing.T) {
	f := mesh(t, server(t))
	f.install(install.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	core := f.Client.Kubernetes.CoreV1()
	if err := core.ConfigMaps(f.Namespace).Delete(ctx, "meshctl-install", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.Pods(f.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	report, err := f.Uninstall(ctx, install.UninstallOptions{Wait: patience})
	if err != nil || !strings.Contains(changes(report, install.Removed), "Deployment "+f.Namespace+"/istiod") {
		t.Errorf("%v %+v", err, report)
	}
}
