package kube

import (
	"encoding/json"
	"fmt"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// decode makes a typed object of one of a custom kind. A policy that cannot be
// understood in all parts comes out stricter; of the other kinds, an object that
// cannot be understood is left out.
func decode(obj runtime.Object, kind string, check source.Checker) (metav1.Object, []source.Problem) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, []source.Problem{{Object: kind, Message: fmt.Sprintf("the API server sent a %T", obj)}}
	}
	name := source.Key{Kind: kind, Name: source.Name{Namespace: u.GetNamespace(), Name: u.GetName()}}
	problem := func(format string, args ...any) []source.Problem {
		return []source.Problem{{Object: name.String(), Message: fmt.Sprintf(format, args...)}}
	}
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return nil, problem("cannot be read: %v", err)
	}
	switch kind {
	case "AuthorizationPolicy":
		ap := &securityv1.AuthorizationPolicy{}
		faults := check.Decode(raw, ap)
		trimCustom(&ap.ObjectMeta)
		return source.RestrictAuthorization(ap, faults), problemsOfFaults(name, faults, "the policy is enforced more strictly than it says: what is not understood in an ALLOW rule allows nothing, in a DENY rule it counts as met")
	case "RequestAuthentication":
		ra := &securityv1.RequestAuthentication{}
		faults := check.Decode(raw, ra)
		trimCustom(&ra.ObjectMeta)
		return source.RestrictRequest(ra, faults), problemsOfFaults(name, faults, "no token is accepted by any of its rules")
	case "PeerAuthentication":
		pa := &securityv1.PeerAuthentication{}
		faults := check.Decode(raw, pa)
		trimCustom(&pa.ObjectMeta)
		return source.RestrictPeer(pa, faults), problemsOfFaults(name, faults, "the mode STRICT is enforced for all ports of what it selects")
	case "ServiceEntry":
		return entry(raw, name, &networkingv1.ServiceEntry{}, check)
	case "WorkloadEntry":
		return entry(raw, name, &networkingv1.WorkloadEntry{}, check)
	case "DestinationRule":
		dr := &networkingv1.DestinationRule{}
		faults := check.Decode(raw, dr)
		trimCustom(&dr.ObjectMeta)
		return dr, problemsOfFaults(name, faults, "the rest is in effect")
	case "Telemetry":
		o := &telemetryv1.Telemetry{}
		faults := check.Decode(raw, o)
		trimCustom(&o.ObjectMeta)
		if len(faults) > 0 {
			return nil, problemsOfFaults(name, faults, "nothing of it is in effect")
		}
		return o, nil
	case "VirtualService":
		vs := &networkingv1.VirtualService{}
		faults := check.Decode(raw, vs)
		trimCustom(&vs.ObjectMeta)
		return vs, problemsOfFaults(name, faults, "the rest is in effect")
	}
	var out metav1.Object
	var meta *metav1.ObjectMeta
	switch kind {
	case "Gateway":
		o := &gatewayv1.Gateway{}
		out, meta = o, &o.ObjectMeta
	case "GatewayClass":
		o := &gatewayv1.GatewayClass{}
		out, meta = o, &o.ObjectMeta
	case "HTTPRoute":
		o := &gatewayv1.HTTPRoute{}
		out, meta = o, &o.ObjectMeta
	case "GRPCRoute":
		o := &gatewayv1.GRPCRoute{}
		out, meta = o, &o.ObjectMeta
	case "TCPRoute":
		o := &gatewayv1.TCPRoute{}
		out, meta = o, &o.ObjectMeta
	case "TLSRoute":
		o := &gatewayv1.TLSRoute{}
		out, meta = o, &o.ObjectMeta
	case "ReferenceGrant":
		o := &gatewayv1.ReferenceGrant{}
		out, meta = o, &o.ObjectMeta
	case "BackendTLSPolicy":
		o := &gatewayv1.BackendTLSPolicy{}
		out, meta = o, &o.ObjectMeta
	case "XBackendTrafficPolicy":
		o := &gatewayxv1alpha1.XBackendTrafficPolicy{}
		out, meta = o, &o.ObjectMeta
	case "FaultPolicy":
		o := &policyv1alpha1.FaultPolicy{}
		out, meta = o, &o.ObjectMeta
	case "BackendPolicy":
		o := &policyv1alpha1.BackendPolicy{}
		out, meta = o, &o.ObjectMeta
	}
	if kind == "RateLimitPolicy" {
		o := &policyv1alpha1.RateLimitPolicy{}
		out, meta = o, &o.ObjectMeta
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, problem("cannot be read and is left out: %v", err)
	}
	trimCustom(meta)
	if p, ok := out.(*policyv1alpha1.RateLimitPolicy); ok {
		return p, problemsOfFaults(name, source.FaultsOf(check.Check(p)), "no request is counted: all pass, or get 503 where failureMode is Closed")
	}
	return out, nil
}

func entry(raw []byte, name source.Key, obj metav1.Object, check source.Checker) (metav1.Object, []source.Problem) {
	faults := check.Decode(raw, obj)
	switch o := obj.(type) {
	case *networkingv1.ServiceEntry:
		trimCustom(&o.ObjectMeta)
	case *networkingv1.WorkloadEntry:
		trimCustom(&o.ObjectMeta)
	}
	if len(faults) > 0 {
		return nil, problemsOfFaults(name, faults, "the object is left out")
	}
	return obj, nil
}

func problemsOf(obj metav1.Object, errs field.ErrorList) []source.Problem {
	if len(errs) == 0 {
		return nil
	}
	return problemsOfFaults(source.KeyOf(obj), source.FaultsOf(errs), "the value is taken as if it were not there")
}

func problemsOfFaults(name source.Key, faults []source.Fault, consequence string) []source.Problem {
	problems := make([]source.Problem, 0, len(faults))
	for _, f := range faults {
		problems = append(problems, source.Problem{Object: name.String(), Field: f.Field, Message: f.Message + "; " + consequence})
	}
	return problems
}
