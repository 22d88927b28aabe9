package manifest

import (
	"encoding/json"
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// The labels by which a waypoint's pods are known, which are Istio's.
const (
	LabelGateway = "gateway.networking.k8s.io/gateway-name"
	LabelManaged = "gateway.istio.io/managed"
	managedBy    = "istio.io-mesh-controller"

	waypointClass     = "istio-waypoint"
	annotationAccount = "gateway.istio.io/service-account"
	waypointPort      = 15008
	waypointReadyPort = 15021
)

// addWaypoints declares what runs the waypoints of the Gateways, as the control plane
// does in a cluster: a ServiceAccount, a Service and a Deployment of each. What the
// user has declared by these names himself stays.
func (s *Set) addWaypoints() []error {
	var errs []error
	for _, o := range s.OfKind("Gateway") {
		gw, ok := o.Value.(*gatewayv1.Gateway)
		if !ok || gw.Spec.GatewayClassName != waypointClass {
			continue
		}
		for _, object := range waypointObjects(o, gw) {
			if err := s.addMade(o, object); err != nil {
				errs = append(errs, fmt.Errorf("%s: %v: %w", o.Place.where(), o.Key, err))
			}
		}
	}
	return errs
}

// addMade decodes an object that was made because of another, unless there is one of
// its name.
func (s *Set) addMade(because *Object, object map[string]any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	place := because.Place
	place.JSON = text
	made, err := decode(place)
	if err != nil {
		return err
	}
	if s.byKey[made.Key] == nil {
		s.objects = append(s.objects, made)
		s.byKey[made.Key] = made
	}
	return nil
}

func waypointObjects(o *Object, gw *gatewayv1.Gateway) []map[string]any {
	account := gw.Annotations[annotationAccount]
	if account == "" {
		account = o.Name
	}
	selector := map[string]string{LabelGateway: o.Name}
	labels := map[string]string{LabelGateway: o.Name, LabelManaged: managedBy}
	meta := func(name string) map[string]any {
		return map[string]any{"name": name, "namespace": o.Namespace, "labels": labels}
	}
	pod := map[string]string{LabelGateway: o.Name, LabelManaged: managedBy, "istio.io/dataplane-mode": "none"}
	return []map[string]any{
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(account)},
		{"apiVersion": "v1", "kind": "Service", "metadata": meta(o.Name), "spec": map[string]any{
			"selector": selector,
			"ports":    []any{map[string]any{"name": "mesh", "port": waypointPort, "appProtocol": "hbone"}},
		}},
		{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(o.Name), "spec": map[string]any{
			"selector": map[string]any{"matchLabels": selector},
			"template": map[string]any{
				"metadata": map[string]any{"labels": pod},
				"spec": map[string]any{
					"serviceAccountName": account,
					"containers": []any{map[string]any{
						"name": "waypoint", "command": []string{"waypoint"}, "args": []string{"--gateway", o.Name},
						"readinessProbe": map[string]any{"httpGet": map[string]any{"path": "/healthz/ready", "port": waypointReadyPort}},
						"env": []any{
							fieldEnv("POD_NAME", "metadata.name"), fieldEnv("POD_NAMESPACE", "metadata.namespace"),
							fieldEnv("SERVICE_ACCOUNT", "spec.serviceAccountName"), fieldEnv("NODE_NAME", "spec.nodeName"),
							fieldEnv("INSTANCE_IP", "status.podIP"),
						},
					}},
				},
			},
		}},
	}
}

func fieldEnv(name, path string) map[string]any {
	return map[string]any{"name": name, "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": path}}}
}
