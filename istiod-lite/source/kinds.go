package source

import (
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// Class says what Tulle does with a kind.
type Class int

const (
	// Unknown kinds are errors: most are misspelt.
	Unknown Class = iota
	// Acted kinds make up Objects.
	Acted
	// Inert kinds carry nothing that decides who may talk to whom or where
	// traffic goes: they only bring pods about. They are taken note of, so that
	// one directory can serve kubectl and Tulle.
	Inert
	// Later kinds steer or secure traffic, and Tulle does not act on them yet.
	// Passing over one would leave a rule unenforced, so they are errors.
	Later
)

// Kind describes one kind of object.
type Kind struct {
	Class Class
	// Namespaced is false for kinds that live in no namespace.
	Namespaced bool
	// New returns an empty object of an Acted kind.
	New func() metav1.Object
}

// Lookup returns what is known of a kind; its Class is Unknown when nothing is.
func Lookup(gvk schema.GroupVersionKind) Kind {
	if k, ok := acted[gvk]; ok {
		return k
	}
	gk := gvk.GroupKind()
	if inert[gk] {
		return Kind{Class: Inert}
	}
	if later[gk] || laterGroups[gvk.Group] {
		return Kind{Class: Later}
	}
	return Kind{}
}

// OtherVersion returns the versions under which a kind is taken, for the error
// about one that is not; empty when the kind is not taken at all.
func OtherVersion(gvk schema.GroupVersionKind) string {
	for _, v := range []string{"v1", "v1beta1", "v1alpha3", "v1alpha1"} {
		if _, ok := acted[schema.GroupVersionKind{Group: gvk.Group, Version: v, Kind: gvk.Kind}]; ok {
			return schema.GroupVersion{Group: gvk.Group, Version: v}.String()
		}
	}
	return ""
}

var acted = map[schema.GroupVersionKind]Kind{
	{Version: "v1", Kind: "Namespace"}:      {Class: Acted, New: func() metav1.Object { return new(corev1.Namespace) }},
	{Version: "v1", Kind: "Node"}:           {Class: Acted, New: func() metav1.Object { return new(corev1.Node) }},
	{Version: "v1", Kind: "Pod"}:            {Class: Acted, Namespaced: true, New: func() metav1.Object { return new(corev1.Pod) }},
	{Version: "v1", Kind: "Service"}:        {Class: Acted, Namespaced: true, New: func() metav1.Object { return new(corev1.Service) }},
	{Version: "v1", Kind: "ConfigMap"}:      {Class: Acted, Namespaced: true, New: func() metav1.Object { return new(corev1.ConfigMap) }},
	{Version: "v1", Kind: "ServiceAccount"}: {Class: Acted, Namespaced: true, New: func() metav1.Object { return new(corev1.ServiceAccount) }},
	{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"}: {Class: Acted, Namespaced: true,
		New: func() metav1.Object { return new(discoveryv1.EndpointSlice) }},
}

// Istio's versions of one kind have one shape and are all read as v1, and so do
// those of the Gateway API's kinds that have several.
func init() {
	for _, k := range []struct {
		kind       string
		namespaced bool
		versions   []string
		make       func() metav1.Object
	}{
		{"Gateway", true, []string{"v1", "v1beta1"}, func() metav1.Object { return new(gatewayv1.Gateway) }},
		{"GatewayClass", false, []string{"v1", "v1beta1"}, func() metav1.Object { return new(gatewayv1.GatewayClass) }},
		{"HTTPRoute", true, []string{"v1", "v1beta1"}, func() metav1.Object { return new(gatewayv1.HTTPRoute) }},
		{"GRPCRoute", true, []string{"v1"}, func() metav1.Object { return new(gatewayv1.GRPCRoute) }},
		{"TCPRoute", true, []string{"v1"}, func() metav1.Object { return new(gatewayv1.TCPRoute) }},
		{"TLSRoute", true, []string{"v1"}, func() metav1.Object { return new(gatewayv1.TLSRoute) }},
		{"ReferenceGrant", true, []string{"v1", "v1beta1"}, func() metav1.Object { return new(gatewayv1.ReferenceGrant) }},
		{"BackendTLSPolicy", true, []string{"v1", "v1alpha3"}, func() metav1.Object { return new(gatewayv1.BackendTLSPolicy) }},
	} {
		for _, version := range k.versions {
			acted[schema.GroupVersionKind{Group: gatewayv1.GroupName, Version: version, Kind: k.kind}] =
				Kind{Class: Acted, Namespaced: k.namespaced, New: k.make}
		}
	}
	for _, version := range []string{"v1", "v1beta1"} {
		acted[schema.GroupVersionKind{Group: "security.istio.io", Version: version, Kind: "AuthorizationPolicy"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(securityv1.AuthorizationPolicy) }}
		acted[schema.GroupVersionKind{Group: "security.istio.io", Version: version, Kind: "PeerAuthentication"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(securityv1.PeerAuthentication) }}
		acted[schema.GroupVersionKind{Group: "security.istio.io", Version: version, Kind: "RequestAuthentication"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(securityv1.RequestAuthentication) }}
	}
	for _, version := range []string{"v1", "v1alpha1"} {
		acted[schema.GroupVersionKind{Group: "telemetry.istio.io", Version: version, Kind: "Telemetry"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(telemetryv1.Telemetry) }}
	}
	acted[policyv1alpha1.SchemeGroupVersion.WithKind("RateLimitPolicy")] =
		Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(policyv1alpha1.RateLimitPolicy) }}
	acted[policyv1alpha1.SchemeGroupVersion.WithKind("FaultPolicy")] =
		Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(policyv1alpha1.FaultPolicy) }}
	acted[policyv1alpha1.SchemeGroupVersion.WithKind("BackendPolicy")] =
		Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(policyv1alpha1.BackendPolicy) }}
	acted[schema.GroupVersionKind{Group: gatewayxv1alpha1.GroupName, Version: "v1alpha1", Kind: "XBackendTrafficPolicy"}] =
		Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(gatewayxv1alpha1.XBackendTrafficPolicy) }}
	for _, version := range []string{"v1", "v1beta1", "v1alpha3"} {
		acted[schema.GroupVersionKind{Group: "networking.istio.io", Version: version, Kind: "DestinationRule"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(networkingv1.DestinationRule) }}
		acted[schema.GroupVersionKind{Group: "networking.istio.io", Version: version, Kind: "VirtualService"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(networkingv1.VirtualService) }}
		acted[schema.GroupVersionKind{Group: "networking.istio.io", Version: version, Kind: "ServiceEntry"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(networkingv1.ServiceEntry) }}
		acted[schema.GroupVersionKind{Group: "networking.istio.io", Version: version, Kind: "WorkloadEntry"}] =
			Kind{Class: Acted, Namespaced: true, New: func() metav1.Object { return new(networkingv1.WorkloadEntry) }}
	}
}

var inert = map[schema.GroupKind]bool{
	{Kind: "Secret"}:                true,
	{Kind: "Event"}:                 true,
	{Kind: "LimitRange"}:            true,
	{Kind: "ResourceQuota"}:         true,
	{Kind: "PersistentVolume"}:      true,
	{Kind: "PersistentVolumeClaim"}: true,
	{Kind: "PodTemplate"}:           true,
	{Kind: "ReplicationController"}: true,

	{Group: "apps", Kind: "Deployment"}:         true,
	{Group: "apps", Kind: "ReplicaSet"}:         true,
	{Group: "apps", Kind: "StatefulSet"}:        true,
	{Group: "apps", Kind: "DaemonSet"}:          true,
	{Group: "apps", Kind: "ControllerRevision"}: true,
	{Group: "batch", Kind: "Job"}:               true,
	{Group: "batch", Kind: "CronJob"}:           true,

	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:                    true,
	{Group: "policy", Kind: "PodDisruptionBudget"}:                             true,
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:                        true,
	{Group: "rbac.authorization.k8s.io", Kind: "Role"}:                         true,
	{Group: "rbac.authorization.k8s.io", Kind: "RoleBinding"}:                  true,
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"}:                  true,
	{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"}:           true,
	{Group: "storage.k8s.io", Kind: "StorageClass"}:                            true,
	{Group: "networking.istio.io", Kind: "WorkloadGroup"}:                      true,
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:          true,
	{Group: "coordination.k8s.io", Kind: "Lease"}:                              true,
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:                               true,
	{Group: "storage.k8s.io", Kind: "CSIDriver"}:                               true,
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}: true,
}

// later holds kinds of groups that Tulle acts on in part; laterGroups holds
// whole groups.
var (
	later = map[schema.GroupKind]bool{
		{Group: "networking.istio.io", Kind: "Gateway"}:     true,
		{Group: "networking.istio.io", Kind: "Sidecar"}:     true,
		{Group: "networking.istio.io", Kind: "EnvoyFilter"}: true,
		{Group: "networking.istio.io", Kind: "ProxyConfig"}: true,
		{Group: "networking.k8s.io", Kind: "NetworkPolicy"}: true,
		{Group: "networking.k8s.io", Kind: "Ingress"}:       true,
		{Group: "networking.k8s.io", Kind: "IngressClass"}:  true,
		{Kind: "Endpoints"}: true,
	}
	laterGroups = map[string]bool{
		"gateway.networking.k8s.io":   true,
		"gateway.networking.x-k8s.io": true,
		"telemetry.istio.io":          true,
		"extensions.istio.io":         true,
	}
)
