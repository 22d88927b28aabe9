package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
)

// Checker holds what the checks depend on besides the object.
type Checker struct {
	// RootNamespace is where mesh-wide policies live. Required.
	RootNamespace string
	// Served objects come from an API server, which has validated them as far as
	// it knows, and are there to stay: only what it does not validate is checked,
	// and what is known and not supported is left to translate, which says so in
	// a warning.
	Served bool
}

// Check returns what is wrong with obj's values, none when it is good. It is
// what an API server's validation would do, for the fields that Tulle reads,
// and more where a value could never have the effect that its author wants.
func (c Checker) Check(obj metav1.Object) field.ErrorList {
	if c.Served {
		return c.checkServed(obj)
	}
	meta := field.NewPath("metadata")
	switch o := obj.(type) {
	case *corev1.Namespace:
		return append(checkMeta(&o.ObjectMeta, false, apivalidation.NameIsDNSLabel), checkModeLabel(o.Labels, meta.Child("labels"))...)
	case *corev1.Node:
		return checkMeta(&o.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	case *corev1.Pod:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkPod(o)...)
	case *corev1.Service:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNS1035Label), checkService(o)...)
	case *corev1.ServiceAccount:
		return checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	case *discoveryv1.EndpointSlice:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkEndpointSlice(o)...)
	case *securityv1.AuthorizationPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), c.checkAuthorizationPolicy(o)...)
	case *securityv1.PeerAuthentication:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkPeerAuthentication(o)...)
	case *securityv1.RequestAuthentication:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), c.checkRequestAuthentication(o)...)
	case *networkingv1.ServiceEntry:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkServiceEntry(o)...)
	case *gatewayv1.Gateway:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkGateway(o)...)
	case *gatewayv1.GatewayClass:
		return checkMeta(&o.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	case *gatewayv1.HTTPRoute:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkHTTPRoute(o)...)
	case *gatewayv1.GRPCRoute:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkGRPCRoute(o)...)
	case *gatewayv1.TCPRoute:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkTCPRoute(o)...)
	case *gatewayv1.TLSRoute:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkTLSRoute(o)...)
	case *gatewayv1.ReferenceGrant:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkReferenceGrant(o)...)
	case *policyv1alpha1.RateLimitPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), RateLimitFaults(o)...)
	case *telemetryv1.Telemetry:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), c.checkTelemetry(o)...)
	case *corev1.ConfigMap:
		return checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	case *networkingv1.DestinationRule:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkDestinationRule(o)...)
	case *networkingv1.VirtualService:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkVirtualService(o)...)
	case *gatewayv1.BackendTLSPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkBackendTLSPolicy(o)...)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkBackendTrafficPolicy(o)...)
	case *policyv1alpha1.FaultPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), FaultPolicyFaults(o)...)
	case *policyv1alpha1.BackendPolicy:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), BackendPolicyFaults(o)...)
	case *networkingv1.WorkloadEntry:
		return append(checkMeta(&o.ObjectMeta, true, apivalidation.NameIsDNSSubdomain), checkWorkloadEntry(o)...)
	}
	panic(fmt.Sprintf("source: %T is no mesh object", obj))
}

// checkServed checks what an API server leaves unchecked.
func (c Checker) checkServed(obj metav1.Object) field.ErrorList {
	labels := field.NewPath("metadata", "labels")
	switch o := obj.(type) {
	case *corev1.Namespace:
		return append(checkModeLabel(o.Labels, labels), checkTrafficAnnotation(o.Annotations)...)
	case *corev1.Pod:
		return checkModeLabel(o.Labels, labels)
	case *corev1.Service:
		return checkTrafficAnnotation(o.Annotations)
	case *securityv1.AuthorizationPolicy:
		return c.checkAuthorizationPolicy(o)
	case *securityv1.PeerAuthentication:
		return checkPeerAuthentication(o)
	case *securityv1.RequestAuthentication:
		return c.checkRequestAuthentication(o)
	case *networkingv1.ServiceEntry:
		return checkServiceEntry(o)
	case *networkingv1.WorkloadEntry:
		return checkWorkloadEntry(o)
	case *policyv1alpha1.RateLimitPolicy:
		return RateLimitFaults(o)
	case *telemetryv1.Telemetry:
		return c.checkTelemetry(o)
	}
	return nil
}

func checkMeta(m *metav1.ObjectMeta, namespaced bool, name apivalidation.ValidateNameFunc) field.ErrorList {
	path := field.NewPath("metadata")
	if m.Name == "" && m.GenerateName != "" {
		return field.ErrorList{field.Invalid(path.Child("generateName"), m.GenerateName, "only an API server makes up names; set metadata.name")}
	}
	return apivalidation.ValidateObjectMeta(m, namespaced, name, path)
}

// checkModeLabel refuses values of istio.io/dataplane-mode that enrol nothing
// although their author meant to.
func checkModeLabel(labels map[string]string, path *field.Path) field.ErrorList {
	switch mode, ok := labels[LabelDataplaneMode]; {
	case !ok, mode == ModeAmbient, mode == ModeNone:
		return nil
	default:
		return field.ErrorList{field.NotSupported(path.Key(LabelDataplaneMode), mode, []string{ModeAmbient, ModeNone})}
	}
}

func checkPort(port int64, path *field.Path) field.ErrorList {
	if port < 1 || port > 65535 {
		return field.ErrorList{field.Invalid(path, port, "must be between 1 and 65535")}
	}
	return nil
}

func checkIP(s string, path *field.Path) field.ErrorList {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(path, s, "must be an IPv4 or IPv6 address")}
	case a.Zone() != "":
		return field.ErrorList{field.Invalid(path, s, "must not have a zone")}
	case a.Is4In6():
		return field.ErrorList{field.Invalid(path, s, "must be written as IPv4 address")}
	case a.IsUnspecified():
		return field.ErrorList{field.Invalid(path, s, "must not be the unspecified address")}
	}
	return nil
}

// checkBlock takes an address or a CIDR block.
func checkBlock(s string, path *field.Path) field.ErrorList {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return field.ErrorList{field.Invalid(path, s, "must be an IP address or a CIDR block, as 10.0.0.0/8 or fd00::/8")}
		}
		return nil
	}
	if p, err := netip.ParsePrefix(s); err != nil || p.Addr().Is4In6() {
		return field.ErrorList{field.Invalid(path, s, "must be an IP address or a CIDR block, as 10.0.0.0/8 or fd00::/8")}
	}
	return nil
}

func checkHostname(s string, path *field.Path) field.ErrorList {
	name := strings.TrimSuffix(strings.TrimPrefix(s, "*."), ".")
	if msgs := validation.IsDNS1123Subdomain(strings.ToLower(name)); len(msgs) > 0 {
		return field.ErrorList{field.Invalid(path, s, strings.Join(msgs, "; "))}
	}
	return nil
}

func checkLabelMap(labels map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for key, value := range labels {
		for _, msg := range validation.IsQualifiedName(key) {
			errs = append(errs, field.Invalid(path, key, msg))
		}
		for _, msg := range validation.IsValidLabelValue(value) {
			errs = append(errs, field.Invalid(path.Key(key), value, msg))
		}
	}
	return errs
}

func checkServiceAccountName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return nil
	}
	if msgs := validation.IsDNS1123Subdomain(name); len(msgs) > 0 {
		return field.ErrorList{field.Invalid(path, name, strings.Join(msgs, "; "))}
	}
	return nil
}

func notSupported(path *field.Path, value string, valid ...string) field.ErrorList {
	if slices.Contains(valid, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, valid)}
}
