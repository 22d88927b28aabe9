package install

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// waypointLabels mark what istiod made for Gateways.
const waypointLabels = "gateway.istio.io/managed=istio.io-mesh-controller," + partOfLabel + "=" + partOf

// waypointClass is the GatewayClass that istiod makes.
var waypointClass = Ref{"gateway.networking.k8s.io/v1", "GatewayClass", "", "istio-waypoint"}

// removeWaypoints takes what istiod made for Gateways, when it cannot make it anew any
// more, and their class. The Gateways stay: they are their authors'.
func (u *uninstall) removeWaypoints(ctx context.Context) error {
	for _, kind := range []struct {
		schema.GroupVersionResource
		name string
	}{
		{schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}, "HorizontalPodAutoscaler"},
		{schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, "Deployment"},
		{schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, "PodDisruptionBudget"},
		{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "Service"},
		{schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, "ServiceAccount"},
	} {
		list, err := u.Client.Dynamic.Resource(kind.GroupVersionResource).List(ctx, metav1.ListOptions{LabelSelector: waypointLabels})
		if err != nil {
			return u.Client.Explain(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if u.opt.DryRun {
				continue
			}
			uid, background := o.GetUID(), metav1.DeletePropagationBackground
			err := u.Client.Dynamic.Resource(kind.GroupVersionResource).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{
				PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid}})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("remove %s %s/%s: %w", kind.name, o.GetNamespace(), o.GetName(), u.Client.Explain(err))
			}
		}
		if n := len(list.Items); n > 0 {
			u.report.Changes = append(u.report.Changes, Change{Ref: Ref{kind.GroupVersion().String(), kind.name, "*", "*"}, Action: Removed, Note: fmt.Sprintf("%d of waypoints; their Gateways stay", n)})
			if !u.opt.DryRun {
				u.say("%d %ss of waypoints removed", n, kind.name)
			}
		}
	}
	if !u.opt.Definitions { // with which they go
		if err := u.keepGateways(ctx); err != nil {
			return err
		}
	}
	class, err := u.live(ctx, waypointClass)
	if err != nil || class == nil || class.GetLabels()[partOfLabel] != partOf {
		return err
	}
	return u.take(ctx, waypointClass, metav1.DeletePropagationBackground)
}

// keepGateways tells that the Gateways of waypoints stay, with what was said of them last.
func (u *uninstall) keepGateways(ctx context.Context) error {
	list, err := u.Client.Gateway.GatewayV1().Gateways("").List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) { // the kind is not there
		return nil
	}
	if err != nil {
		return u.Client.Explain(err)
	}
	n := 0
	for i := range list.Items {
		if string(list.Items[i].Spec.GatewayClassName) == waypointClass.Name {
			n++
		}
	}
	if n > 0 {
		u.report.Changes = append(u.report.Changes, Change{Ref: Ref{waypointClass.APIVersion, "Gateway", "*", "*"}, Action: Kept,
			Note: fmt.Sprintf("%d of waypoints: they are their authors', and their conditions tell of what was", n)})
	}
	return nil
}
