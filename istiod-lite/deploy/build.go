package deploy

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// made is one kind that is made for Gateways.
type made struct {
	kind     string
	resource schema.GroupVersionResource
}

// The kinds, in the order in which they are applied: pods come last, so that what
// they need is there.
var (
	accounts    = made{"ServiceAccount", schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}}
	services    = made{"Service", schema.GroupVersionResource{Version: "v1", Resource: "services"}}
	budgets     = made{"PodDisruptionBudget", schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}}
	deployments = made{"Deployment", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}}
	autoscalers = made{"HorizontalPodAutoscaler", schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}}
)

var allMade = []made{accounts, services, budgets, deployments, autoscalers}

// wanted is an object that is to be.
type wanted struct {
	made
	object *unstructured.Unstructured
}

// deploys reports whether a Gateway is one whose waypoint is made here: not one that
// names the address of its own, by a hostname or several.
func deploys(objects *source.Objects, gw *gatewayv1.Gateway) bool {
	if gw == nil || !translate.IsWaypoint(objects, gw) || gw.DeletionTimestamp != nil {
		return false
	}
	switch addresses := gw.Spec.Addresses; len(addresses) {
	case 0:
		return true
	case 1:
		return addresses[0].Type == nil || *addresses[0].Type == gatewayv1.IPAddressType
	}
	return false
}

// build returns the objects of a Gateway, in order.
func build(settings Settings, options translate.Options, gw *gatewayv1.Gateway, list []parameters) ([]wanted, error) {
	t := template{settings: settings, options: options, gateway: gw, names: namesOf(gw)}
	account, service, budget := t.account(), t.service(), t.budget()
	deployment, err := t.deployment()
	if err != nil {
		return nil, err
	}
	selector := deployment.Spec.Selector
	for _, err := range []error{
		overlay(account, keyAccount, list), overlay(service, keyService, list), overlay(budget, keyBudget, list), overlay(deployment, keyDeployment, list),
	} {
		if err != nil {
			return nil, err
		}
	}
	// Who the pods are, and which pods are the Gateway's, is no matter of taste: both
	// are what the waypoint's rights hang on. Nor is that they stay out of the mesh: they
	// listen where their node's proxy would, which then could not start for them.
	deployment.Spec.Selector, deployment.Spec.Template.Spec.ServiceAccountName = selector, t.names.account
	if deployment.Spec.Template.Labels == nil { // which an overlay may have taken out
		deployment.Spec.Template.Labels = map[string]string{}
	}
	maps.Copy(deployment.Spec.Template.Labels, t.labels())
	deployment.Spec.Template.Labels[source.LabelDataplaneMode] = source.ModeNone
	limitHeap(deployment)
	objects := []struct {
		made
		object any
	}{{accounts, account}, {services, service}, {budgets, budget}, {deployments, deployment}}
	if asked(list, keyAutoscaler) {
		autoscaler := t.autoscaler()
		if err := overlay(autoscaler, keyAutoscaler, list); err != nil {
			return nil, err
		}
		if deployment.Spec.Replicas != nil {
			return nil, fmt.Errorf("%s sets spec.replicas, and %s is there: only one of them can say how many pods there are", keyDeployment, keyAutoscaler)
		}
		objects = append(objects, struct {
			made
			object any
		}{autoscalers, autoscaler})
	}
	var out []wanted
	for _, o := range objects {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o.object)
		if err != nil {
			return nil, err
		}
		delete(fields, "status")
		object := &unstructured.Unstructured{Object: fields}
		// By these the watch and an uninstallation find it, whatever an overlay says.
		labels := object.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, t.labels())
		object.SetLabels(labels)
		out = append(out, wanted{o.made, clean(object)})
	}
	return out, nil
}

// clean takes out what typed objects say without being asked.
func clean(o *unstructured.Unstructured) *unstructured.Unstructured {
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(o.Object, "spec", "template", "metadata", "creationTimestamp")
	if strategy, ok, _ := unstructured.NestedMap(o.Object, "spec", "strategy"); ok && len(strategy) == 0 {
		unstructured.RemoveNestedField(o.Object, "spec", "strategy")
	}
	return o
}
