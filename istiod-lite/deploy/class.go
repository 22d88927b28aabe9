package deploy

import (
	"context"
	"fmt"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// makeClass makes the class of waypoints where there is none. One that is there stays
// as it is, whoever made it.
func (r *run) makeClass(ctx context.Context, name source.Name) error {
	if objects := r.newest.Load(); objects.GatewayClasses[name] != nil {
		return nil
	}
	_, err := r.cfg.Dynamic.Resource(gatewayv1.SchemeGroupVersion.WithResource("gatewayclasses")).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": gatewayv1.SchemeGroupVersion.String(),
		"kind":       "GatewayClass",
		"metadata": map[string]any{"name": name.Name, "labels": map[string]any{
			"app.kubernetes.io/part-of": "tulle", "app.kubernetes.io/managed-by": "istiod-lite",
		}},
		"spec": map[string]any{
			"controllerName": translate.WaypointController,
			"description":    "Waypoints: the mesh's proxies for requests",
		},
	}}, metav1.CreateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsNotFound(err):
		return nil // the Gateway API is not installed; when it is, the state changes
	case err != nil:
		r.writes.WithLabelValues("GatewayClass", "error").Inc()
		return fmt.Errorf("make GatewayClass %s: %w", name.Name, err)
	}
	r.writes.WithLabelValues("GatewayClass", "ok").Inc()
	r.cfg.Logger.Info("class of waypoints made", zap.String("gatewayclass", name.Name))
	return nil
}
