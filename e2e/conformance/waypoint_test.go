package conformance_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"github.com/tulle-mesh/tulle/e2e/conformance"
)

const waypointName = "waypoint"

// namespaceLabels enrol the suite's namespaces and put their services behind one
// waypoint, that of the namespace whose services the suite calls.
var namespaceLabels = map[string]string{
	"istio.io/dataplane-mode":         "ambient",
	"istio.io/use-waypoint":           waypointName,
	"istio.io/use-waypoint-namespace": suite.MeshNamespace,
}

// prepare makes the namespace of the waypoint and the waypoint, and returns when it
// is programmed. With cleanup the namespace goes at the test's end, all that is in it included.
func prepare(t *testing.T, c client.Client, cleanup bool) {
	t.Helper()
	ctx := t.Context()
	for _, name := range []string{suite.MeshNamespace, suite.MeshConsumerNamespace} {
		gone(t, c, name)
	}
	require.NoError(t, c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: suite.MeshNamespace, Labels: namespaceLabels}}))
	t.Cleanup(func() {
		if !cleanup {
			return
		}
		// Where the suite did not come so far; else the namespace is on its way.
		err := c.Delete(context.WithoutCancel(ctx), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: suite.MeshNamespace}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			t.Error(err)
		}
	})
	all := gatewayv1.NamespacesFromAll
	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: waypointName, Namespace: suite.MeshNamespace},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "istio-waypoint",
			Listeners: []gatewayv1.Listener{{
				Name: "mesh", Port: 15008, Protocol: "HBONE",
				AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}},
			}},
		},
	}
	require.NoError(t, c.Create(ctx, gateway))
	err := wait.PollUntilContextTimeout(ctx, conformance.PollEvery, conformance.WaypointWithin, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(gateway), gateway); err != nil {
			return false, err
		}
		return len(gateway.Status.Addresses) > 0 && meta.IsStatusConditionTrue(gateway.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)), nil
	})
	require.NoError(t, err, "the waypoint is not programmed; its conditions: %+v", gateway.Status.Conditions)
	t.Logf("waypoint %s/%s is programmed", gateway.Namespace, gateway.Name)
}

// gone waits until a namespace of an earlier run is no more.
func gone(t *testing.T, c client.Client, name string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), conformance.PollEvery, conformance.GoneWithin, true, func(ctx context.Context) (bool, error) {
		ns := &corev1.Namespace{}
		err := c.Get(ctx, client.ObjectKey{Name: name}, ns)
		if err == nil && ns.DeletionTimestamp == nil {
			return false, fmt.Errorf("namespace %s is there already: remove it first", name)
		}
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	require.NoError(t, err)
}
