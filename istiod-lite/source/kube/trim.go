package kube

import (
	"maps"
	"reflect"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"google.golang.org/protobuf/proto"

	policyv1alpha1 "github.com/tulle-mesh/tulle/api/policy/v1alpha1"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// trimMeta keeps of the metadata what anybody reads. The resource version stays
// where conditions are written back.
func trimMeta(m *metav1.ObjectMeta, version bool, annotations ...string) metav1.ObjectMeta {
	out := metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, Labels: m.Labels,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
	if version {
		out.ResourceVersion, out.Generation = m.ResourceVersion, m.Generation
	}
	for _, key := range annotations {
		if v, ok := m.Annotations[key]; ok {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[key] = v
		}
	}
	return out
}

func trimNamespace(ns *corev1.Namespace) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: trimMeta(&ns.ObjectMeta, false, source.AnnotationTrafficDistribution, source.AnnotationUseWaypointCanaryWeight, source.AnnotationSkipIdleWaypoint)}
}

// trimConfigMap keeps certificates, which BackendTLSPolicies refer to, and all of
// the mesh's own configuration.
func trimConfigMap(root string) func(*corev1.ConfigMap) *corev1.ConfigMap {
	return func(cm *corev1.ConfigMap) *corev1.ConfigMap {
		out := &corev1.ConfigMap{ObjectMeta: trimMeta(&cm.ObjectMeta, false)}
		if cm.Namespace == root && cm.Name == source.MeshConfigMap {
			out.Data = cm.Data
			return out
		}
		ca, ok := cm.Data[source.CAKey]
		if !ok {
			return nil
		}
		out.Data = map[string]string{source.CAKey: ca}
		return out
	}
}

// trimNode keeps the labels that say where the node is.
func trimNode(node *corev1.Node) *corev1.Node {
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID}}
	for _, key := range []string{source.LabelRegion, source.LabelZone, source.LabelSubzone} {
		if v, ok := node.Labels[key]; ok {
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[key] = v
		}
	}
	return out
}

var controller = true

// trimPod copies what translate reads into a new object, so that the decoded one,
// several times larger, is given back whole.
func (in *interner) trimPod(pod *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: trimMeta(&pod.ObjectMeta, false, source.AnnotationRedirection, source.AnnotationSidecarStatus),
		Spec: corev1.PodSpec{
			ServiceAccountName: in.of(pod.Spec.ServiceAccountName),
			NodeName:           in.of(pod.Spec.NodeName),
			HostNetwork:        pod.Spec.HostNetwork,
			Containers:         trimContainers(pod.Spec.Containers),
			InitContainers:     trimContainers(pod.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: corev1.PodPhase(in.of(string(pod.Status.Phase))), PodIP: pod.Status.PodIP},
	}
	out.Namespace = in.of(pod.Namespace)
	owner := metav1.GetControllerOfNoCopy(pod)
	if _, ok := out.Annotations[source.AnnotationSidecarStatus]; ok {
		out.Annotations[source.AnnotationSidecarStatus] = "" // a page of JSON of which only the presence counts
	}
	if owner != nil {
		out.OwnerReferences = []metav1.OwnerReference{{Kind: in.of(text(owner.Kind)), Name: in.of(text(owner.Name)), Controller: &controller}}
		in.share(out, pod.Labels, owner.Name)
	} else {
		in.share(out, pod.Labels, "")
	}
	if ips := pod.Status.PodIPs; len(ips) > 1 || (len(ips) == 1 && ips[0].IP != pod.Status.PodIP) {
		out.Status.PodIPs = ips // a lone address stands in PodIP already
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionStatus(in.of(string(c.Status)))}}
		}
	}
	return out
}

// text makes UTF-8 of what the API server does not check and lets pass as any
// bytes in its binary encoding. What is made of objects must be UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// trimContainers keeps named ports, which services refer to, of the containers
// that have any.
func trimContainers(list []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range list {
		var ports []corev1.ContainerPort
		for _, p := range list[i].Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{Name: list[i].Name, Ports: ports, RestartPolicy: list[i].RestartPolicy})
		}
	}
	return out
}

func trimService(svc *corev1.Service) *corev1.Service {
	out := &corev1.Service{
		ObjectMeta: trimMeta(&svc.ObjectMeta, true, source.AnnotationTrafficDistribution, source.AnnotationUseWaypointCanaryWeight),
		Spec: corev1.ServiceSpec{
			Type: svc.Spec.Type, Ports: svc.Spec.Ports, Selector: svc.Spec.Selector, ClusterIP: svc.Spec.ClusterIP, ClusterIPs: svc.Spec.ClusterIPs,
			IPFamilies: svc.Spec.IPFamilies, ExternalName: svc.Spec.ExternalName, PublishNotReadyAddresses: svc.Spec.PublishNotReadyAddresses,
			InternalTrafficPolicy: svc.Spec.InternalTrafficPolicy, TrafficDistribution: svc.Spec.TrafficDistribution,
		},
		Status: corev1.ServiceStatus{Conditions: svc.Status.Conditions},
	}
	return out
}

func trimSlice(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{ObjectMeta: trimMeta(&slice.ObjectMeta, false), AddressType: slice.AddressType, Ports: slice.Ports}
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		trimmed := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, NodeName: e.NodeName, Zone: e.Zone}
		if e.TargetRef != nil {
			trimmed.TargetRef = &corev1.ObjectReference{Kind: e.TargetRef.Kind, Name: e.TargetRef.Name, Namespace: e.TargetRef.Namespace}
		}
		out.Endpoints = append(out.Endpoints, trimmed)
	}
	return out
}

// trimCustom drops who wrote which field.
func trimCustom(m *metav1.ObjectMeta) {
	m.ManagedFields = nil
	delete(m.Annotations, corev1.LastAppliedConfigAnnotation)
	if len(m.Annotations) == 0 {
		m.Annotations = nil
	}
}

// same reports whether two trimmed objects say the same but for the resource
// version. Then the older one stays in force, and nothing is computed anew: most
// updates of a pod, and all heartbeats of a node, end here.
func same(a, b metav1.Object) bool {
	if a == nil || b == nil {
		return false
	}
	switch a := a.(type) {
	case *corev1.Pod:
		return reflect.DeepEqual(a, b)
	case *securityv1.AuthorizationPolicy:
		b := b.(*securityv1.AuthorizationPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *securityv1.PeerAuthentication:
		b := b.(*securityv1.PeerAuthentication)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *securityv1.RequestAuthentication:
		b := b.(*securityv1.RequestAuthentication)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *telemetryv1.Telemetry:
		b := b.(*telemetryv1.Telemetry)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *networkingv1.ServiceEntry:
		b := b.(*networkingv1.ServiceEntry)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *networkingv1.WorkloadEntry:
		b := b.(*networkingv1.WorkloadEntry)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *corev1.Service:
		b := b.(*corev1.Service)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.Gateway:
		b := b.(*gatewayv1.Gateway)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.GatewayClass:
		b := b.(*gatewayv1.GatewayClass)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.HTTPRoute:
		b := b.(*gatewayv1.HTTPRoute)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.GRPCRoute:
		b := b.(*gatewayv1.GRPCRoute)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.TCPRoute:
		b := b.(*gatewayv1.TCPRoute)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.TLSRoute:
		b := b.(*gatewayv1.TLSRoute)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *policyv1alpha1.RateLimitPolicy:
		b := b.(*policyv1alpha1.RateLimitPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayv1.BackendTLSPolicy:
		b := b.(*gatewayv1.BackendTLSPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		b := b.(*gatewayxv1alpha1.XBackendTrafficPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *policyv1alpha1.FaultPolicy:
		b := b.(*policyv1alpha1.FaultPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *policyv1alpha1.BackendPolicy:
		b := b.(*policyv1alpha1.BackendPolicy)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec) && reflect.DeepEqual(&a.Status, &b.Status)
	case *networkingv1.DestinationRule:
		b := b.(*networkingv1.DestinationRule)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *networkingv1.VirtualService:
		b := b.(*networkingv1.VirtualService)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *corev1.ConfigMap:
		b := b.(*corev1.ConfigMap)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && maps.Equal(a.Data, b.Data)
	case *gatewayv1.ReferenceGrant:
		b := b.(*gatewayv1.ReferenceGrant)
		return sameMeta(&a.ObjectMeta, &b.ObjectMeta) && reflect.DeepEqual(&a.Spec, &b.Spec)
	}
	return reflect.DeepEqual(a, b)
}

func sameMeta(a, b *metav1.ObjectMeta) bool {
	x, y := *a, *b
	x.ResourceVersion, y.ResourceVersion = "", ""
	return reflect.DeepEqual(&x, &y)
}
