package suite_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var gatewayResource = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}

// waypointObjects are a waypoint whose replicas are all the same to clients, and a
// route that tells that it was there.
const waypointObjects = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
  infrastructure:
    annotations: {networking.istio.io/traffic-distribution: ""}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: server}
spec:
  parentRefs: [{group: "", kind: Service, name: server}]
  rules:
    - matches: [{path: {type: Exact, value: /elsewhere}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]
    - backendRefs: [{name: server, port: 80}]
`

// testWaypoint: a Gateway becomes a waypoint, which is restarted, scaled up and down
// and changed under load on fresh and kept connections of HTTP/1.1 and on HTTP/2, of
// which no request fails; its replicas share the load; and what was made for the
// Gateway goes with it.
func testWaypoint(t *testing.T) {
	s := enrolled(t, "waypoint")
	s.deploy("server", 2, spread)
	s.service("server")
	client := s.client("client", onNode(nodeClient))
	s.label("istio.io/use-waypoint", "waypoint")
	if err := suite.apply(t.Context(), s.name, waypointObjects); err != nil {
		t.Fatal(err)
	}
	s.programmed("waypoint")
	eventually(t, within, "the route is followed", func() error {
		if out, err := client.exec("app", "get", url(s.host("server"), 80)+"elsewhere"); err == nil || !strings.Contains(out+err.Error(), "302") {
			return fmt.Errorf("answered %q, %v", out, err)
		}
		return nil
	})
	loads := map[string]*job{}
	for _, kind := range []string{"fresh", "kept", "h2"} {
		loads[kind] = client.load(url(s.host("server"), 80), 40, "--connections="+kind)
	}
	pass := func() {
		t.Helper()
		for _, kind := range slices.Sorted(maps.Keys(loads)) {
			loads[kind].passes(40, within)
		}
	}
	deployments := suite.client.AppsV1().Deployments(s.name)
	step := func(what string, replicas int32, change func() error) {
		t.Helper()
		begun := time.Now()
		before, err := deployments.Get(t.Context(), "waypoint", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		s.rolledOut("waypoint", replicas, before.Generation)
		pass()
		t.Logf("%s: %.1f s", what, time.Since(begun).Seconds())
	}
	patch := func(text string) func() error {
		return func() error {
			_, err := deployments.Patch(t.Context(), "waypoint", types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{FieldManager: "suite"})
			return err
		}
	}
	pass()
	step("restart", 1, patch(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`))
	step("scale to 3", 3, patch(`{"spec":{"replicas":3}}`))
	s.shares(loads["fresh"])
	step("change of the template", 3, func() error {
		_, err := suite.dynamic.Resource(gatewayResource).Namespace(s.name).Patch(t.Context(), "waypoint", types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"sidecar.istio.io/proxyCPU":"50m"}}}`), metav1.PatchOptions{FieldManager: "suite"})
		return err
	})
	step("scale to 1", 1, patch(`{"spec":{"replicas":1}}`))
	for _, kind := range slices.Sorted(maps.Keys(loads)) {
		loads[kind].stopClean(kind + " connections through a waypoint that is rolled, scaled and changed")
	}
	if err := suite.dynamic.Resource(gatewayResource).Namespace(s.name).Delete(t.Context(), "waypoint", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, within, "what was made for the Gateway goes with it", func() error {
		_, err := deployments.Get(t.Context(), "waypoint", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("Deployment waypoint: %v", err)
		}
		_, err = suite.client.CoreV1().Services(s.name).Get(t.Context(), "waypoint", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("Service waypoint: %v", err)
		}
		return nil
	})
}

// programmed waits until the Gateway's waypoint takes traffic.
func (s *space) programmed(name string) {
	s.t.Helper()
	eventually(s.t, within, "Gateway "+name+" is programmed", func() error {
		gw, err := suite.dynamic.Resource(gatewayResource).Namespace(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status, _ := gw.Object["status"].(map[string]any)
		conditions, _ := status["conditions"].([]any)
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Programmed" && c["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("conditions are %v", conditions)
	})
}

// waypointPods lists the pods of a Gateway's waypoint that have not ended.
func (s *space) waypointPods(name string) []corev1.Pod {
	s.t.Helper()
	list, err := suite.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "gateway.networking.k8s.io/gateway-name=" + name})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// rolledOut waits until a waypoint has that many pods, all new and ready, and the old
// ones are gone, after a change of what was its specification of that generation.
func (s *space) rolledOut(name string, replicas int32, since int64) {
	s.t.Helper()
	eventually(s.t, within, fmt.Sprintf("waypoint %s has %d pods of its newest version", name, replicas), func() error {
		d, err := suite.client.AppsV1().Deployments(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if st := d.Status; d.Generation == since || d.Generation != st.ObservedGeneration || *d.Spec.Replicas != replicas || st.UpdatedReplicas != replicas || st.AvailableReplicas != replicas || st.Replicas != replicas {
			return fmt.Errorf("of %d, generation %d after %d: %d updated, %d available, %d in all", replicas, d.Generation, since, st.UpdatedReplicas, st.AvailableReplicas, st.Replicas)
		}
		if pods := s.waypointPods(name); len(pods) != int(replicas) {
			return fmt.Errorf("%d pods are there", len(pods))
		}
		return nil
	})
}

var requestsTotal = regexp.MustCompile(`(?m)^istio_requests_total\{[^}]*\} (\S+)$`)

// requests reads how many requests a waypoint's pod has dealt with.
func (s *space) requests(pod string) float64 {
	s.t.Helper()
	body, err := suite.client.CoreV1().RESTClient().Get().Namespace(s.name).Resource("pods").Name(pod + ":15020").SubResource("proxy").Suffix("metrics").DoRaw(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	total := 0.0
	for _, m := range requestsTotal.FindAllSubmatch(body, -1) {
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			s.t.Fatal(err)
		}
		total += n
	}
	return total
}

// shares checks that each of the waypoint's pods gets its share of new connections. The
// kept ones stay where they are, on as little as one pod, and are no part of a share.
func (s *space) shares(fresh *job) {
	s.t.Helper()
	const sent = 200
	before := map[string]float64{}
	for _, p := range s.waypointPods("waypoint") {
		before[p.Name] = s.requests(p.Name)
	}
	fresh.passes(sent, within)
	got := map[string]float64{}
	for name, n := range before {
		got[name] = s.requests(name) - n
	}
	for name, n := range got {
		if n < sent/float64(len(got))/3 {
			s.t.Errorf("%s dealt with %.0f requests, of %d new connections to %d pods: %v", name, n, sent, len(got), got)
		}
	}
	s.t.Logf("requests by pod: %v", got)
}
