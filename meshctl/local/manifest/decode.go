package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/api/networking/v1"
	securityv1 "istio.io/api/security/v1"
	telemetryv1 "istio.io/api/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	strictjson "sigs.k8s.io/json"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/internal/istiojson"
	"github.com/tulle-mesh/tulle/internal/jsonfault"
)

type deployment = appsv1.Deployment

// kind tells how to decode the objects of one kind.
type kind struct {
	name        string
	apiVersions []string
	// value makes the Kubernetes type, or the Istio spec message.
	value  func() any
	global bool
	check  func(o *Object) []error
}

var kinds = []kind{
	{name: "Namespace", apiVersions: []string{"v1"}, value: func() any { return &corev1.Namespace{} }, global: true},
	{name: "Pod", apiVersions: []string{"v1"}, value: func() any { return &corev1.Pod{} }, check: checkPod},
	{name: "Deployment", apiVersions: []string{"apps/v1"}, value: func() any { return &deployment{} }, check: checkDeployment},
	{name: "Service", apiVersions: []string{"v1"}, value: func() any { return &corev1.Service{} }, check: checkService},
	{name: "ServiceAccount", apiVersions: []string{"v1"}, value: func() any { return &corev1.ServiceAccount{} }},
	{name: "ConfigMap", apiVersions: []string{"v1"}, value: func() any { return &corev1.ConfigMap{} }},
	{name: "EndpointSlice", apiVersions: []string{"discovery.k8s.io/v1"}, value: func() any { return &discoveryv1.EndpointSlice{} }},
	{name: "Gateway", apiVersions: []string{"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"}, value: func() any { return &gatewayv1.Gateway{} }},
	{name: "HTTPRoute", apiVersions: []string{"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"}, value: func() any { return &gatewayv1.HTTPRoute{} }},
	{name: "GRPCRoute", apiVersions: []string{"gateway.networking.k8s.io/v1"}, value: func() any { return &gatewayv1.GRPCRoute{} }},
	{name: "TCPRoute", apiVersions: []string{"gateway.networking.k8s.io/v1"}, value: func() any { return &gatewayv1.TCPRoute{} }},
	{name: "TLSRoute", apiVersions: []string{"gateway.networking.k8s.io/v1"}, value: func() any { return &gatewayv1.TLSRoute{} }},
	{name: "BackendTLSPolicy", apiVersions: []string{"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"}, value: func() any { return &gatewayv1.BackendTLSPolicy{} }},
	{name: "XBackendTrafficPolicy", apiVersions: []string{"gateway.networking.x-k8s.io/v1alpha1"}, value: func() any { return &gatewayxv1alpha1.XBackendTrafficPolicy{} }},
	{name: "ReferenceGrant", apiVersions: []string{"gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"}, value: func() any { return &gatewayv1.ReferenceGrant{} }},
	{name: "AuthorizationPolicy", apiVersions: []string{"security.istio.io/v1", "security.istio.io/v1beta1"}, value: func() any { return &securityv1.AuthorizationPolicy{} }},
	{name: "PeerAuthentication", apiVersions: []string{"security.istio.io/v1", "security.istio.io/v1beta1"}, value: func() any { return &securityv1.PeerAuthentication{} }},
	{name: "RequestAuthentication", apiVersions: []string{"security.istio.io/v1", "security.istio.io/v1beta1"}, value: func() any { return &securityv1.RequestAuthentication{} }},
	{name: "Telemetry", apiVersions: []string{"telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"}, value: func() any { return &telemetryv1.Telemetry{} }},
	{name: "FaultPolicy", apiVersions: []string{"policy.tulle.dev/v1alpha1"}, value: func() any { return &policyv1alpha1.FaultPolicy{} }},
	{name: "BackendPolicy", apiVersions: []string{"policy.tulle.dev/v1alpha1"}, value: func() any { return &policyv1alpha1.BackendPolicy{} }},
	{name: "RateLimitPolicy", apiVersions: []string{"policy.tulle.dev/v1alpha1"}, value: func() any { return &policyv1alpha1.RateLimitPolicy{} }},
	{name: "DestinationRule", apiVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, value: func() any { return &networkingv1.DestinationRule{} }},
	{name: "VirtualService", apiVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, value: func() any { return &networkingv1.VirtualService{} }},
	{name: "ServiceEntry", apiVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, value: func() any { return &networkingv1.ServiceEntry{} }},
	{name: "WorkloadEntry", apiVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, value: func() any { return &networkingv1.WorkloadEntry{} }},
}

func decode(d Document) (*Object, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(d.JSON, &head); err != nil {
		return nil, fmt.Errorf("not a Kubernetes object: %w", err)
	}
	if head.Kind == "" || head.APIVersion == "" {
		return nil, errors.New("not a Kubernetes object: apiVersion and kind must be set")
	}
	o := &Object{Key: Key{head.Kind, head.Metadata.Namespace, head.Metadata.Name}, APIVersion: head.APIVersion, Place: d}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == head.Kind })
	if i < 0 {
		return nil, fmt.Errorf("%v: kind %s is not supported by the local mesh; supported are %s", o.Key, head.Kind, kindNames())
	}
	k := kinds[i]
	if !slices.Contains(k.apiVersions, head.APIVersion) {
		return nil, fmt.Errorf("%v: apiVersion %q is not known for this kind; use %q", o.Key, head.APIVersion, k.apiVersions[0])
	}
	if head.Metadata.Name == "" {
		return nil, fmt.Errorf("%s: metadata.name: must be set", head.Kind)
	}
	if msgs := validation.IsDNS1123Subdomain(head.Metadata.Name); len(msgs) > 0 {
		return nil, fmt.Errorf("%v: metadata.name: %s", o.Key, msgs[0])
	}
	switch {
	case k.global && o.Namespace != "":
		return nil, fmt.Errorf("%v: metadata.namespace: a %s is not in a namespace", o.Key, k.name)
	case !k.global && o.Namespace == "":
		o.Namespace = metav1.NamespaceDefault
	}
	o.Value = k.value()
	if err := o.decodeValue(); err != nil {
		return nil, each(err, func(err error) error { return fmt.Errorf("%v: %w", o.Key, err) })
	}
	o.Meta.Namespace = o.Namespace
	if k.check != nil {
		if errs := k.check(o); len(errs) > 0 {
			for i, err := range errs {
				errs[i] = fmt.Errorf("%v: %w", o.Key, err)
			}
			return nil, errors.Join(errs...)
		}
	}
	return o, nil
}

func (o *Object) decodeValue() error {
	message, isIstio := o.Value.(proto.Message)
	if !isIstio || !strings.Contains(o.APIVersion, "istio.io") {
		if err := strict(o.Place.JSON, o.Value); err != nil {
			return err
		}
		o.Meta = *o.Value.(metav1.Object).(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
		return nil
	}
	// Istio's types let unknown fields pass in their own UnmarshalJSON, so the
	// object is taken apart here and its spec is decoded by protojson, which
	// refuses them.
	var outer struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata,omitempty"`
		Spec              json.RawMessage `json:"spec,omitempty"`
		Status            json.RawMessage `json:"status,omitempty"`
	}
	if err := strict(o.Place.JSON, &outer); err != nil {
		return err
	}
	o.Meta = outer.ObjectMeta
	if len(outer.Spec) == 0 {
		return nil
	}
	if faults := jsonfault.Message(outer.Spec, message.ProtoReflect().Descriptor(), "spec"); len(faults) > 0 {
		return joined(faults)
	}
	if err := (protojson.UnmarshalOptions{}).Unmarshal(istiojson.Seconds(outer.Spec, message.ProtoReflect().Descriptor()), message); err != nil {
		return fmt.Errorf("spec: %s", protoReason(err))
	}
	return nil
}

// each puts in front of each of the errors that were joined what says where it is.
func each(err error, wrap func(error) error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return wrap(err)
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, wrap(err))
	}
	return errors.Join(errs...)
}

// strict decodes JSON and refuses fields that the type does not have.
func strict(data []byte, into any) error {
	strictErrs, err := strictjson.UnmarshalStrict(data, into)
	if err == nil {
		return errors.Join(strictErrs...)
	}
	if faults := jsonfault.Value(data, into); len(faults) > 0 {
		return joined(faults)
	}
	return err
}

// joined names the fields with what is wrong with them.
func joined(faults []*jsonfault.Fault) error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		text := f.Message
		if !strings.HasPrefix(text, "unknown field") { // which has its path
			text = f.Path + ": " + text
		}
		if word, _, _ := strings.Cut(f.Message, ":"); word == "true" || word == "false" {
			text += " (YAML takes y, n, yes, no, on and off for true and false: quote them)"
		}
		errs[i] = errors.New(text)
	}
	return errors.Join(errs...)
}

// protoReason takes from protojson's message the library's name and the
// position, which counts in JSON that the user never saw.
func protoReason(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies its blanks on purpose
	text = strings.TrimPrefix(text, "proto: ")
	if rest, ok := strings.CutPrefix(text, "("); ok {
		if _, after, found := strings.Cut(rest, "): "); found {
			text = after
		}
	}
	return text
}

func kindNames() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}
