package status

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// fieldManager owns what is written, and what is not stated any more is taken away.
// lastingManager owns what must stay, also when the version that was watched is
// behind and does not have it yet.
const (
	fieldManager   = "istiod-lite"
	lastingManager = "istiod-lite-serving"
)

// endpoint is where a kind's objects are in the API.
type endpoint struct {
	schema.GroupVersion
	resource string
	// atomic kinds have their conditions, or what holds them, in one list that
	// the API does not merge.
	atomic bool
}

var endpoints = map[string]endpoint{
	"Service":               {schema.GroupVersion{Version: "v1"}, "services", false},
	"ServiceEntry":          {schema.GroupVersion{Group: "networking.istio.io", Version: "v1"}, "serviceentries", true},
	"WorkloadEntry":         {schema.GroupVersion{Group: "networking.istio.io", Version: "v1"}, "workloadentries", true},
	"AuthorizationPolicy":   {schema.GroupVersion{Group: "security.istio.io", Version: "v1"}, "authorizationpolicies", true},
	"RequestAuthentication": {schema.GroupVersion{Group: "security.istio.io", Version: "v1"}, "requestauthentications", true},
	"Telemetry":             {schema.GroupVersion{Group: "telemetry.istio.io", Version: "v1"}, "telemetries", true},
	"GatewayClass":          {gatewayv1.SchemeGroupVersion, "gatewayclasses", false},
	"Gateway":               {gatewayv1.SchemeGroupVersion, "gateways", false},
	"HTTPRoute":             {gatewayv1.SchemeGroupVersion, "httproutes", true},
	"GRPCRoute":             {gatewayv1.SchemeGroupVersion, "grpcroutes", true},
	"TCPRoute":              {gatewayv1.SchemeGroupVersion, "tcproutes", true},
	"TLSRoute":              {gatewayv1.SchemeGroupVersion, "tlsroutes", true},
	"DestinationRule":       {schema.GroupVersion{Group: "networking.istio.io", Version: "v1"}, "destinationrules", true},
	"VirtualService":        {schema.GroupVersion{Group: "networking.istio.io", Version: "v1"}, "virtualservices", true},
	"BackendTLSPolicy":      {gatewayv1.SchemeGroupVersion, "backendtlspolicies", true},
	"XBackendTrafficPolicy": {schema.GroupVersion{Group: gatewayxv1alpha1.GroupName, Version: "v1alpha1"}, "xbackendtrafficpolicies", true},
	"RateLimitPolicy":       {policyv1alpha1.SchemeGroupVersion, "ratelimitpolicies", false},
	"FaultPolicy":           {policyv1alpha1.SchemeGroupVersion, "faultpolicies", false},
	"BackendPolicy":         {policyv1alpha1.SchemeGroupVersion, "backendpolicies", false},
}

// write reports whether it changed anything.
func (r *run) write(ctx context.Context, key source.Key, obj metav1.Object, want Wanted) (bool, error) {
	at := endpoints[key.Kind]
	var client dynamic.ResourceInterface = r.cfg.Client.Resource(at.WithResource(at.resource))
	if key.Namespace != "" {
		client = r.cfg.Client.Resource(at.WithResource(at.resource)).Namespace(key.Namespace)
	}
	if at.atomic {
		return merge(ctx, client, key, obj, want)
	}
	return true, apply(ctx, client, key, at, obj, want)
}

// apply states what is ours, and has the API server merge it.
func apply(ctx context.Context, client dynamic.ResourceInterface, key source.Key, at endpoint, obj metav1.Object, want Wanted) error {
	now := time.Now()
	conditions := func(list []Condition, have []metav1.Condition) []any {
		out := []any{}
		for _, c := range list {
			since := now
			for _, h := range have {
				if h.Type == c.Type && h.Status == c.Status {
					since = h.LastTransitionTime.Time
				}
			}
			out = append(out, encode(c, obj.GetGeneration(), since))
		}
		return out
	}
	var lasting []Condition
	if i := slices.IndexFunc(want.Conditions, func(c Condition) bool { return c.Type == translate.ConditionServing }); i >= 0 {
		lasting = want.Conditions[i : i+1]
		want.Conditions = slices.Delete(slices.Clone(want.Conditions), i, i+1)
	}
	status := map[string]any{"conditions": conditions(want.Conditions, present(obj))}
	if gw, ok := obj.(*gatewayv1.Gateway); ok {
		listeners := []any{}
		for _, l := range want.Listeners {
			var have []metav1.Condition
			for _, h := range gw.Status.Listeners {
				if h.Name == l.Name {
					have = h.Conditions
				}
			}
			listeners = append(listeners, map[string]any{
				"name": string(l.Name), "attachedRoutes": int64(0), "supportedKinds": []any{}, "conditions": conditions(l.Conditions, have),
			})
		}
		status["listeners"] = listeners
		if len(want.Addresses) > 0 {
			addresses := []any{}
			for _, a := range want.Addresses {
				addresses = append(addresses, map[string]any{"type": string(gatewayv1.HostnameAddressType), "value": a})
			}
			status["addresses"] = addresses
		}
	}
	// The UID keeps a new object of the same name from being taken for this one.
	meta := map[string]any{"name": key.Name.Name, "uid": string(obj.GetUID())}
	if key.Namespace != "" {
		meta["namespace"] = key.Namespace
	}
	send := func(manager string, status map[string]any) error {
		_, err := client.ApplyStatus(ctx, key.Name.Name, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": at.GroupVersion.String(), "kind": key.Kind, "metadata": meta, "status": status,
		}}, metav1.ApplyOptions{FieldManager: manager, Force: true})
		return err
	}
	if len(lasting) > 0 {
		if err := send(lastingManager, map[string]any{"conditions": conditions(lasting, present(obj))}); err != nil {
			return err
		}
	}
	return send(fieldManager, status)
}

// merge reads the object anew, since the version that was watched may be behind,
// and replaces in its list what is ours.
func merge(ctx context.Context, client dynamic.ResourceInterface, key source.Key, obj metav1.Object, want Wanted) (bool, error) {
	live, err := client.Get(ctx, key.Name.Name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	if live.GetUID() != obj.GetUID() || live.GetGeneration() != obj.GetGeneration() {
		return false, nil // what was decided is about another version; the watch brings this one
	}
	field, next := "conditions", mergeConditions
	switch obj.(type) {
	case *gatewayv1.BackendTLSPolicy, *gatewayxv1alpha1.XBackendTrafficPolicy:
		field, next = "ancestors", mergeParents("ancestorRef")
	default:
		if strings.HasSuffix(key.Kind, "Route") {
			field, next = "parents", mergeParents("parentRef")
		}
	}
	have, _, err := unstructured.NestedSlice(live.Object, "status", field)
	if err != nil {
		return false, fmt.Errorf("status.%s: %w", field, err)
	}
	list, err := next(have, want, kinds[key.Kind], live.GetGeneration(), time.Now())
	if err != nil {
		return false, err
	}
	if reflect.DeepEqual(have, list) || len(have) == 0 && len(list) == 0 {
		return false, nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": live.GetResourceVersion()},
		"status":   map[string]any{field: list},
	})
	if err != nil {
		return false, err
	}
	_, err = client.Patch(ctx, key.Name.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "status")
	return err == nil, err
}

// mergeConditions returns have with the wanted conditions in it, and without
// those of ours that are not wanted.
func mergeConditions(have []any, want Wanted, ours []string, generation int64, now time.Time) ([]any, error) {
	list := []any{}
	placed := map[string]bool{}
	for _, h := range have {
		old, _ := h.(map[string]any)
		kind, _ := old["type"].(string)
		i := slices.IndexFunc(want.Conditions, func(c Condition) bool { return c.Type == kind })
		switch {
		case i >= 0 && !placed[kind]:
			placed[kind] = true
			list = append(list, renewed(old, want.Conditions[i], generation, now))
		case i < 0 && !slices.Contains(ours, kind):
			list = append(list, h)
		}
	}
	for _, c := range want.Conditions {
		if !placed[c.Type] {
			list = append(list, encode(c, generation, now))
		}
	}
	return list, nil
}

// renewed is the condition c in the place of old: old itself when that says the
// same already.
func renewed(old map[string]any, c Condition, generation int64, now time.Time) map[string]any {
	since := now
	if old["status"] == string(c.Status) {
		if text, ok := old["lastTransitionTime"].(string); ok {
			if t, err := time.Parse(time.RFC3339, text); err == nil {
				since = t
			}
		}
	}
	if old["status"] == string(c.Status) && old["reason"] == c.Reason && old["message"] == c.Message && number(old["observedGeneration"]) == generation {
		return old
	}
	return encode(c, generation, since)
}

// number reads an integer in either of the forms that Istio's API has it.
func number(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case float64:
		return int64(v)
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// mergeParents returns a function that returns have with this controller's entries,
// which name under ref what they are about, as wanted.
func mergeParents(ref string) func(have []any, want Wanted, _ []string, generation int64, now time.Time) ([]any, error) {
	return func(have []any, want Wanted, _ []string, generation int64, now time.Time) ([]any, error) {
		return mergeEntries(ref, have, want, generation, now)
	}
}

func mergeEntries(name string, have []any, want Wanted, generation int64, now time.Time) ([]any, error) {
	list := []any{}
	mine := make([]map[string]any, len(want.Parents))
	for _, h := range have {
		old, _ := h.(map[string]any)
		if old["controllerName"] != ControllerName {
			list = append(list, h)
			continue
		}
		var ref gatewayv1.ParentReference
		raw, _ := old[name].(map[string]any)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &ref); err != nil {
			continue // written by nobody that we know; ours replaces it
		}
		for i, p := range want.Parents {
			if sameParent(ref, p.Ref) {
				mine[i] = old
			}
		}
	}
	for i, p := range want.Parents {
		ref, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&p.Ref)
		if err != nil {
			return nil, err
		}
		old, _, _ := unstructured.NestedSlice(mine[i], "conditions")
		conditions, err := mergeConditions(old, Wanted{Conditions: p.Conditions}, conditionTypes(old), generation, now)
		if err != nil {
			return nil, err
		}
		list = append(list, map[string]any{name: ref, "controllerName": ControllerName, "conditions": conditions})
	}
	return list, nil
}

// conditionTypes has all conditions of an entry of ours count as ours.
func conditionTypes(list []any) []string {
	var out []string
	for _, c := range list {
		m, _ := c.(map[string]any)
		kind, _ := m["type"].(string)
		out = append(out, kind)
	}
	return out
}

func sameParent(a, b gatewayv1.ParentReference) bool { return reflect.DeepEqual(a, b) }

func encode(c Condition, generation int64, since time.Time) map[string]any {
	return map[string]any{
		"type": c.Type, "status": string(c.Status), "reason": c.Reason, "message": c.Message,
		"observedGeneration": generation, "lastTransitionTime": since.UTC().Format(time.RFC3339),
	}
}
