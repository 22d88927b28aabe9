package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayclient "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/kube"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

// world is a controller at work on a real API, fed by the real source.
type world struct {
	*testing.T
	api        *kubetest.API
	gateways   gatewayclient.Interface
	namespace  string
	controller *deploy.Controller
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{ControllerManager: true, Controllers: []string{
		"namespace-controller", "garbage-collector-controller", "deployment-controller", "replicaset-controller"}})
	w := &world{T: t, api: api, namespace: api.Namespace(t, nil)}
	client, err := dynamic.NewForConfig(api.Config)
	w.must(err)
	meta, err := metadata.NewForConfig(api.Config)
	w.must(err)
	w.gateways, err = gatewayclient.NewForConfig(api.Config)
	w.must(err)
	log := zaptest.NewLogger(t)
	src, err := kube.New(kube.Config{REST: api.Config, RootNamespace: "istio-system", Logger: log})
	w.must(err)
	w.controller, err = deploy.New(deploy.Config{Dynamic: client, Metadata: meta, Settings: settings, Options: options, Logger: log})
	w.must(err)
	w.controller.ReadParametersEvery(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 3)
	go func() { _ = src.Run(ctx); done <- struct{}{} }()
	go func() { w.controller.Run(ctx); done <- struct{}{} }()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			select {
			case <-src.Changed():
				w.controller.Observe(src.Objects())
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			<-done
		}
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) await(what string, cond func() bool) {
	w.Helper()
	end := time.Now().Add(bound)
	for !cond() {
		if time.Now().After(end) {
			w.Fatalf("waited %v for %s", bound, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) gateway(name string, change func(*gatewayv1.Gateway)) *gatewayv1.Gateway {
	w.Helper()
	gw := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "istio-waypoint",
			Listeners: []gatewayv1.Listener{{Name: "mesh", Port: 15008, Protocol: "HBONE"}}},
	}
	if change != nil {
		change(gw)
	}
	gw, err := w.gateways.GatewayV1().Gateways(w.namespace).Create(w.Context(), gw, metav1.CreateOptions{})
	w.must(err)
	return gw
}

func (w *world) deployment(name string) *appsv1.Deployment {
	d, err := w.api.Client.AppsV1().Deployments(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return d
}

func (w *world) done(gw *gatewayv1.Gateway) {
	w.Helper()
	w.await("the waypoint of "+gw.Name, func() bool { return w.controller.Outcome(gw).Done })
}

// there lists what is there under a name, by kind.
func (w *world) there(name string) string {
	var kinds []string
	for _, o := range []struct {
		kind string
		get  func() error
	}{
		{"ServiceAccount", func() error {
			_, err := w.api.Client.CoreV1().ServiceAccounts(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
			return err
		}},
		{"Service", func() error {
			_, err := w.api.Client.CoreV1().Services(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
			return err
		}},
		{"PodDisruptionBudget", func() error {
			_, err := w.api.Client.PolicyV1().PodDisruptionBudgets(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
			return err
		}},
		{"Deployment", func() error {
			_, err := w.api.Client.AppsV1().Deployments(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
			return err
		}},
		{"HorizontalPodAutoscaler", func() error {
			_, err := w.api.Client.AutoscalingV2().HorizontalPodAutoscalers(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
			return err
		}},
	} {
		if err := o.get(); err == nil {
			kinds = append(kinds, o.kind)
		} else if !apierrors.IsNotFound(err) {
			w.Fatal(err)
		}
	}
	return strings.Join(kinds, " ")
}

const plain = "ServiceAccount Service PodDisruptionBudget Deployment"

func TestAGatewayHasAWaypointAsLongAsItIs(t *testing.T) {
	w := newWorld(t)
	gw := w.gateway("waypoint", nil)
	w.done(gw)
	if got := w.there("waypoint"); got != plain {
		t.Errorf("made: %s", got)
	}
	w.await("the class", func() bool {
		class, err := w.gateways.GatewayV1().GatewayClasses().Get(t.Context(), "istio-waypoint", metav1.GetOptions{})
		return err == nil && class.Spec.ControllerName == translate.WaypointController
	})

	// Who scales it is not contradicted; who takes something away is.
	scale := `{"spec":{"replicas":3}}`
	_, err := w.api.Client.AppsV1().Deployments(w.namespace).Patch(t.Context(), "waypoint", "application/merge-patch+json", []byte(scale), metav1.PatchOptions{FieldManager: "somebody"})
	w.must(err)
	w.must(w.api.Client.CoreV1().Services(w.namespace).Delete(t.Context(), "waypoint", metav1.DeleteOptions{}))
	w.await("the Service again", func() bool { return w.there("waypoint") == plain })
	image := `{"spec":{"template":{"spec":{"containers":[{"name":"istio-proxy","image":"example.com/evil"}]}}}}`
	_, err = w.api.Client.AppsV1().Deployments(w.namespace).Patch(t.Context(), "waypoint", "application/strategic-merge-patch+json", []byte(image), metav1.PatchOptions{FieldManager: "somebody"})
	w.must(err)
	w.await("the image as it was", func() bool {
		d := w.deployment("waypoint")
		return d != nil && d.Spec.Template.Spec.Containers[0].Image == settings.Image
	})
	if d := w.deployment("waypoint"); *d.Spec.Replicas != 3 {
		t.Errorf("scaled back to %d", *d.Spec.Replicas)
	}
	before := w.deployment("waypoint").Generation

	// A change of the Gateway is one of the pods.
	patch := `{"metadata":{"annotations":{"sidecar.istio.io/proxyImage":"example.com/waypoint:v2"}}}`
	_, err = w.gateways.GatewayV1().Gateways(w.namespace).Patch(t.Context(), "waypoint", "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	w.must(err)
	w.await("the new image", func() bool {
		return w.deployment("waypoint").Spec.Template.Spec.Containers[0].Image == "example.com/waypoint:v2"
	})
	if after := w.deployment("waypoint").Generation; after != before+1 {
		t.Errorf("one change of the image is %d generations", after-before)
	}
	w.must(w.gateways.GatewayV1().Gateways(w.namespace).Delete(t.Context(), "waypoint", metav1.DeleteOptions{}))
	w.await("its end", func() bool { return w.there("waypoint") == "" })
}

func TestNothingIsMadeForAGatewayThatIsNoMore(t *testing.T) {
	w := newWorld(t)
	gw := w.gateway("waypoint", nil)
	w.done(gw)
	before := w.controller.Newest()
	w.must(w.gateways.GatewayV1().Gateways(w.namespace).Delete(t.Context(), "waypoint", metav1.DeleteOptions{}))
	w.await("its end", func() bool { return w.there("waypoint") == "" })
	client, err := dynamic.NewForConfig(w.api.Config)
	w.must(err)
	meta, err := metadata.NewForConfig(w.api.Config)
	w.must(err)
	late, err := deploy.New(deploy.Config{Dynamic: client, Metadata: meta, Settings: settings, Options: options})
	w.must(err)
	w.must(late.ReconcileOnce(t.Context(), before, source.Name{Namespace: w.namespace, Name: "waypoint"}))
	if got := w.there("waypoint"); got != "" {
		t.Errorf("made for a Gateway that is no more: %s", got)
	}
}

func TestNobodyElsesObjectsAreTaken(t *testing.T) {
	w := newWorld(t)
	foreign, err := w.api.Client.CoreV1().Services(w.namespace).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "waypoint"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "mine"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	w.must(err)
	gw := w.gateway("waypoint", nil)
	w.await("the refusal", func() bool {
		return strings.Contains(w.controller.Outcome(gw).Message, "Service "+w.namespace+"/waypoint")
	})
	if o := w.controller.Outcome(gw); o.Done || o.Reason != string(gatewayv1.GatewayReasonInvalid) {
		t.Errorf("%+v", o)
	}
	if w.deployment("waypoint") != nil {
		t.Error("pods run without their Service")
	}
	now, err := w.api.Client.CoreV1().Services(w.namespace).Get(t.Context(), "waypoint", metav1.GetOptions{})
	w.must(err)
	if now.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the foreign Service was changed: %v", now)
	}
	// When it goes, the waypoint comes.
	w.must(w.api.Client.CoreV1().Services(w.namespace).Delete(t.Context(), "waypoint", metav1.DeleteOptions{}))
	w.done(gw)

	// An account of another name is taken when the Gateway names it, and only then.
	_, err = w.api.Client.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{})
	w.must(err)
	named := w.gateway("named", func(gw *gatewayv1.Gateway) {
		gw.Annotations = map[string]string{"gateway.istio.io/service-account": "app"}
	})
	w.done(named)
	if d := w.deployment("named"); d.Spec.Template.Spec.ServiceAccountName != "app" {
		t.Errorf("it runs as %s", d.Spec.Template.Spec.ServiceAccountName)
	}
	taken := w.gateway("app", nil)
	w.await("the refusal of the account", func() bool { return strings.Contains(w.controller.Outcome(taken).Message, "ServiceAccount") })
}

func TestGatewaysWithProxiesOfTheirOwnAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	hostname := gatewayv1.HostnameAddressType
	manual := w.gateway("manual", func(gw *gatewayv1.Gateway) {
		gw.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Type: &hostname, Value: "mine." + w.namespace + ".svc.cluster.local"}}
	})
	other := w.gateway("other", func(gw *gatewayv1.Gateway) { gw.Spec.GatewayClassName = "nginx" })
	last := w.gateway("last", nil)
	w.done(last)
	for _, gw := range []*gatewayv1.Gateway{manual, other} {
		if o := w.controller.Outcome(gw); o.Managed || w.there(gw.Name) != "" {
			t.Errorf("%s: %+v, made %s", gw.Name, o, w.there(gw.Name))
		}
	}
}

func TestParametersAreLaidOver(t *testing.T) {
	w := newWorld(t)
	cm, err := w.api.Client.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "parameters"},
		Data: map[string]string{"horizontalPodAutoscaler": "spec: {maxReplicas: 7}", "podDisruptionBudget": "spec: {maxUnavailable: null, minAvailable: 1}"}}, metav1.CreateOptions{})
	w.must(err)
	with := func(name string) func(*gatewayv1.Gateway) {
		return func(gw *gatewayv1.Gateway) {
			gw.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Kind: "ConfigMap", Name: name}}
		}
	}
	gw := w.gateway("scaled", with("parameters"))
	w.done(gw)
	if got := w.there("scaled"); got != plain+" HorizontalPodAutoscaler" {
		t.Errorf("made: %s", got)
	}
	if pdb, err := w.api.Client.PolicyV1().PodDisruptionBudgets(w.namespace).Get(t.Context(), "scaled", metav1.GetOptions{}); err != nil || pdb.Spec.MaxUnavailable != nil || pdb.Spec.MinAvailable.IntValue() != 1 {
		t.Errorf("%v, %v", pdb, err)
	}
	// Without a word of it, the autoscaler goes; what cannot be understood changes nothing.
	cm.Data = map[string]string{}
	cm, err = w.api.Client.CoreV1().ConfigMaps(w.namespace).Update(t.Context(), cm, metav1.UpdateOptions{})
	w.must(err)
	w.await("the end of the autoscaler", func() bool { return w.there("scaled") == plain })
	cm.Data = map[string]string{"deployment": "spec: {template: {spec: {containers: 3}}}"}
	_, err = w.api.Client.CoreV1().ConfigMaps(w.namespace).Update(t.Context(), cm, metav1.UpdateOptions{})
	w.must(err)
	w.await("the refusal", func() bool { return w.controller.Outcome(gw).Refused })
	if w.there("scaled") != plain {
		t.Error("a mistake took the waypoint away")
	}
	missing := w.gateway("missing", with("nowhere"))
	w.await("the refusal of what is not there", func() bool { return strings.Contains(w.controller.Outcome(missing).Message, "nowhere") })
	if o := w.controller.Outcome(missing); o.Reason != string(gatewayv1.GatewayReasonInvalidParameters) || w.there("missing") != "" {
		t.Errorf("%+v, made %s", o, w.there("missing"))
	}
	_, err = w.api.Client.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "nowhere"}}, metav1.CreateOptions{})
	w.must(err)
	w.done(missing)
}

func TestAnotherNameTakesTheOldObjectsAway(t *testing.T) {
	w := newWorld(t)
	w.done(w.gateway("waypoint", nil))
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"l7"}}}`, "gateway.istio.io/name-override")
	_, err := w.gateways.GatewayV1().Gateways(w.namespace).Patch(t.Context(), "waypoint", "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	w.must(err)
	w.await("the new name alone", func() bool {
		return w.there("l7") == "Service PodDisruptionBudget Deployment" && w.there("waypoint") == "ServiceAccount"
	})
}
