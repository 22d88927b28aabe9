package waypoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// FieldManager is the name under which the API server keeps what this package wrote.
const FieldManager = "meshctl"

// Class is the GatewayClass of waypoints.
const Class = "istio-waypoint"

// DefaultName is how a waypoint is called without --name.
const DefaultName = "waypoint"

// Labels of Gateways and of what uses them.
const (
	labelFor         = "istio.io/waypoint-for"
	labelRevision    = "istio.io/rev"
	labelUseWaypoint = "istio.io/use-waypoint"
)

// TrafficTypes are the values of --for.
var TrafficTypes = []string{"service", "workload", "all", "none"}

var gateways = schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gateways"}

// Options say which waypoint is meant, and how it is to be.
type Options struct {
	// Namespace is the Gateway's; empty means the one that the kubeconfig brings.
	Namespace string
	// Name is the Gateway's; empty means waypoint.
	Name string
	// For is the traffic type, empty for the class's, which is service.
	For string
	// Revision is the control plane's, empty for none.
	Revision string
	// Enroll has the namespace use the waypoint; Overwrite does so also where it uses
	// another.
	Enroll, Overwrite bool
	// Wait is how long the waypoint may take to be ready; zero does not wait.
	Wait time.Duration
	// Say is told what was done, a line at a time; nil tells nobody.
	Say func(format string, args ...any)
}

func (o Options) say(format string, args ...any) {
	if o.Say != nil {
		o.Say(format, args...)
	}
}

// Check returns what is wrong with the options.
func (o Options) Check() error {
	if o.For != "" && !slices.Contains(TrafficTypes, o.For) {
		return fmt.Errorf("--for %q: must be one of %s", o.For, strings.Join(TrafficTypes, ", "))
	}
	if o.Name == "none" {
		return errors.New(`--name none: as the value of ` + labelUseWaypoint + ` "none" asks for no waypoint`)
	}
	if o.Name != "" && len(validation.IsDNS1035Label(o.Name)) > 0 { // it is that of a Service, too
		return fmt.Errorf("--name %q: must be lower-case letters, digits and dashes, at most 63, and begin with a letter", o.Name)
	}
	if o.Namespace != "" && len(validation.IsDNS1123Label(o.Namespace)) > 0 {
		return fmt.Errorf("--namespace %q: must be the name of a namespace", o.Namespace)
	}
	if len(validation.IsValidLabelValue(o.Revision)) > 0 {
		return fmt.Errorf("--revision %q: must be the value of a label", o.Revision)
	}
	if o.Overwrite && !o.Enroll {
		return errors.New("--overwrite: has a meaning only with --enroll-namespace")
	}
	return nil
}

// Object returns the Gateway of a waypoint.
func Object(o Options) *unstructured.Unstructured {
	labels := map[string]any{}
	if o.For != "" {
		labels[labelFor] = o.For
	}
	if o.Revision != "" {
		labels[labelRevision] = o.Revision
	}
	meta := map[string]any{"name": cmp.Or(o.Name, DefaultName)}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": gatewayv1.GroupVersion.String(), "kind": "Gateway", "metadata": meta,
		"spec": map[string]any{
			"gatewayClassName": Class,
			"listeners":        []any{map[string]any{"name": "mesh", "port": int64(15008), "protocol": "HBONE"}},
		},
	}}
}

// Apply makes or changes a waypoint's Gateway, has the namespace use it if asked to,
// and waits until it is programmed if asked to.
func Apply(ctx context.Context, client *kube.Client, o Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	o.Namespace = cmp.Or(o.Namespace, client.Namespace)
	ns, err := client.Kubernetes.CoreV1().Namespaces().Get(ctx, o.Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no namespace %s; `kubectl create namespace %s` makes it", o.Namespace, o.Namespace)
	}
	if err != nil {
		return client.Explain(err)
	}
	name := cmp.Or(o.Name, DefaultName)
	if used := ns.Labels[labelUseWaypoint]; o.Enroll && used != "" && used != name && !o.Overwrite {
		return fmt.Errorf("namespace %s uses the waypoint %s already; --overwrite has it use %s", o.Namespace, used, name)
	}
	object := Object(o)
	if _, err := client.Dynamic.Resource(gateways).Namespace(o.Namespace).Apply(ctx, name, object, metav1.ApplyOptions{FieldManager: FieldManager, Force: true}); err != nil {
		return explain(client, err)
	}
	o.say("waypoint %s/%s applied", o.Namespace, name)
	if o.Enroll {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{labelUseWaypoint: name}}})
		if err != nil {
			return err
		}
		if _, err := client.Kubernetes.CoreV1().Namespaces().Patch(ctx, o.Namespace, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager}); err != nil {
			return client.Explain(err)
		}
		o.say("namespace %s labeled with \"%s: %s\"", o.Namespace, labelUseWaypoint, name)
		if ns.Labels[mesh.ModeLabel] != "ambient" {
			o.say("note: namespace %s is not in the mesh, so that its own pods go on without the waypoint: `meshctl namespace join %s` takes it in", o.Namespace, o.Namespace)
		}
	}
	if o.Wait <= 0 {
		return nil
	}
	if _, err := await(ctx, client, o.Namespace, []string{name}, o.Wait); err != nil {
		return err
	}
	o.say("waypoint %s/%s is ready", o.Namespace, name)
	return nil
}

// explain says of an error what is missing in the cluster.
func explain(client *kube.Client, err error) error {
	if apierrors.IsNotFound(err) {
		return errors.New("the cluster does not know the kind Gateway of the Gateway API; `meshctl install` brings it")
	}
	return client.Explain(err)
}

// Waypoint tells of one Gateway.
type Waypoint struct {
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	Revision    string `json:"revision"`
	TrafficType string `json:"trafficType"`
	// Programmed is the status of that condition: True, False or Unknown.
	Programmed string      `json:"programmed"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is one of a Gateway's.
type Condition struct {
	Status  string `json:"status"`
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// List returns the waypoints of a namespace, or of all for an empty one, by namespace
// and name. A namespace that is not there is an error.
func List(ctx context.Context, client *kube.Client, namespace string) ([]Waypoint, error) {
	list, err := client.Gateway.GatewayV1().Gateways(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explain(client, err)
	}
	out := []Waypoint{}
	for i := range list.Items {
		if gw := &list.Items[i]; gw.Spec.GatewayClassName == Class {
			out = append(out, describe(gw))
		}
	}
	if len(out) == 0 && namespace != "" {
		// A misspelt namespace has none either.
		if _, err := client.Kubernetes.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("there is no namespace %s", namespace)
		}
	}
	slices.SortFunc(out, func(a, b Waypoint) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

func describe(gw *gatewayv1.Gateway) Waypoint {
	w := Waypoint{
		Namespace: gw.Namespace, Name: gw.Name, Revision: cmp.Or(gw.Labels[labelRevision], "default"),
		TrafficType: cmp.Or(gw.Labels[labelFor], "service"), Programmed: "Unknown",
	}
	for _, c := range gw.Status.Conditions {
		if c.ObservedGeneration < gw.Generation {
			continue // about what the Gateway was
		}
		w.Conditions = append(w.Conditions, Condition{Status: string(c.Status), Type: c.Type, Reason: c.Reason, Message: c.Message})
		if c.Type == string(gatewayv1.GatewayConditionProgrammed) {
			w.Programmed = string(c.Status)
		}
	}
	return w
}

// Status returns the named waypoints of a namespace, all without a name, when they
// are programmed or limit has passed; zero does not wait. With the waypoints as they
// are it returns an error when one is not programmed.
func Status(ctx context.Context, client *kube.Client, namespace string, names []string, limit time.Duration) ([]Waypoint, error) {
	return await(ctx, client, cmp.Or(namespace, client.Namespace), names, limit)
}

// await looks until all named waypoints are programmed.
func await(ctx context.Context, client *kube.Client, namespace string, names []string, limit time.Duration) ([]Waypoint, error) {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		list, err := List(ctx, client, namespace)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			for _, name := range names {
				if !slices.ContainsFunc(list, func(w Waypoint) bool { return w.Name == name }) {
					return nil, fmt.Errorf("there is no waypoint %s/%s; `meshctl waypoint list -n %s` shows those that are there", namespace, name, namespace)
				}
			}
			list = slices.DeleteFunc(list, func(w Waypoint) bool { return !slices.Contains(names, w.Name) })
		}
		i := slices.IndexFunc(list, func(w Waypoint) bool { return w.Programmed != "True" })
		if i < 0 {
			return list, nil
		}
		select {
		case <-time.After(pollInterval):
		case <-timed.Done():
			if err := ctx.Err(); err != nil {
				return list, err
			}
			return list, notReady(list[i], limit)
		}
	}
}

func notReady(w Waypoint, limit time.Duration) error {
	why := "the control plane has said nothing of it: is one installed? `meshctl check` says more"
	for _, c := range w.Conditions {
		if c.Type == string(gatewayv1.GatewayConditionProgrammed) || c.Type == string(gatewayv1.GatewayConditionAccepted) && c.Status != "True" {
			why = c.Message
		}
	}
	if limit > 0 {
		return fmt.Errorf("waypoint %s/%s is not ready after %v: %s", w.Namespace, w.Name, limit, why)
	}
	return fmt.Errorf("waypoint %s/%s is not ready: %s", w.Namespace, w.Name, why)
}

// Delete removes the named waypoints of a namespace, or all of them, of one revision
// unless that is empty, and returns the names of those that it removed.
func Delete(ctx context.Context, client *kube.Client, namespace string, names []string, all bool, revision string) ([]string, error) {
	namespace = cmp.Or(namespace, client.Namespace)
	list, err := List(ctx, client, namespace)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range names {
		if !slices.ContainsFunc(list, func(w Waypoint) bool { return w.Name == name }) {
			errs = append(errs, fmt.Errorf("there is no waypoint %s/%s", namespace, name))
		}
	}
	var gone []string
	for _, w := range list {
		if !all && !slices.Contains(names, w.Name) || revision != "" && w.Revision != revision {
			continue
		}
		if err := client.Gateway.GatewayV1().Gateways(namespace).Delete(ctx, w.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, client.Explain(err))
			continue
		}
		gone = append(gone, w.Name)
	}
	return gone, errors.Join(errs...)
}
