package translate

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// podWorkload returns nil for pods that have ended or have no address yet, and what
// the pod's own waypoint does, nil without one.
func podWorkload(o Options, m *podMemo, refs []sliceRef) (*apiworkload.Workload, *passage) {
	pod := m.pod
	if source.Ended(pod) {
		return nil, nil
	}
	var addresses [][]byte
	for _, ip := range podIPs(pod) {
		if a, err := netip.ParseAddr(ip); err == nil {
			addresses = append(addresses, a.AsSlice())
		}
	}
	if len(addresses) == 0 {
		return nil, nil
	}
	name, kind := workloadOf(pod)
	canonicalName, canonicalRevision := canonical(pod.Labels, name)
	var nodeLabels map[string]string
	if m.node != nil {
		nodeLabels = m.node.Labels
	}
	services, bound, behind := podServices(m, refs)
	var own *passage
	if !pod.Spec.HostNetwork { // whose address is that of others, too
		own = m.namespace.passage(source.KeyOf(pod), pod.Labels, behind)
	}
	w := &apiworkload.Workload{
		Uid:                   podUID(o.ClusterID, source.Name{Namespace: pod.Namespace, Name: pod.Name}),
		Name:                  pod.Name,
		Namespace:             pod.Namespace,
		Addresses:             addresses,
		Network:               firstLabel(pod.Labels, o.Network, source.LabelNetwork),
		TrustDomain:           o.trustDomain(),
		ServiceAccount:        source.ServiceAccountOf(pod),
		Node:                  pod.Spec.NodeName,
		CanonicalName:         canonicalName,
		CanonicalRevision:     canonicalRevision,
		WorkloadName:          name,
		WorkloadType:          kind,
		ClusterId:             o.ClusterID,
		AuthorizationPolicies: m.namespace.applied(pod.Labels, bound, own.among(behind)),
		Services:              services,
		Locality:              locality(pod.Labels, nodeLabels),
	}
	if !ready(pod) {
		w.Status = apiworkload.WorkloadStatus_UNHEALTHY
	}
	if pod.Spec.HostNetwork {
		w.NetworkMode = apiworkload.NetworkMode_HOST_NETWORK
	}
	if o.enrolled(pod, m.namespace.object) {
		w.TunnelProtocol = apiworkload.TunnelProtocol_HBONE
	}
	own.lead(o, w)
	return w, own
}

// Enrolled reports whether a pod's traffic is captured by its node's proxy: its
// own istio.io/dataplane-mode label decides, or else that of its namespace,
// which may be nil. Pods in the host's network namespace and pods with a proxy
// of their own never are. A pod which a node agent has marked as redirected is,
// whatever the labels say by now.
func Enrolled(pod *corev1.Pod, namespace *corev1.Namespace) bool {
	if pod.Spec.HostNetwork {
		return false
	}
	if pod.Annotations[source.AnnotationRedirection] == "enabled" {
		return true
	}
	if _, ok := pod.Annotations[source.AnnotationSidecarStatus]; ok {
		return false
	}
	mode := pod.Labels[source.LabelDataplaneMode]
	if mode == "" && namespace != nil {
		mode = namespace.Labels[source.LabelDataplaneMode]
	}
	return mode == source.ModeAmbient
}

// enrolled is Enrolled, but that in a cluster a pod is only when its node's agent
// says so: the label alone announces what is still to come, and a peer that
// believed it would knock at a port which nobody has opened yet. It stays
// enrolled without its label, until the agent has let it go.
func (o Options) enrolled(pod *corev1.Pod, namespace *corev1.Namespace) bool {
	if !o.Kubernetes {
		return Enrolled(pod, namespace)
	}
	_, sidecar := pod.Annotations[source.AnnotationSidecarStatus]
	return pod.Annotations[source.AnnotationRedirection] == "enabled" && !pod.Spec.HostNetwork && !sidecar
}

// podIPs returns the pod's addresses, the primary one first.
func podIPs(pod *corev1.Pod) []string {
	if len(pod.Status.PodIPs) == 0 {
		if pod.Status.PodIP == "" {
			return nil
		}
		return []string{pod.Status.PodIP}
	}
	ips := make([]string, len(pod.Status.PodIPs))
	for i, ip := range pod.Status.PodIPs {
		ips[i] = ip.IP
	}
	return ips
}

// ready reports whether new connections should go to the pod. One that is being
// deleted gets none, even while its probes still succeed; but see retiring.
func ready(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil && probesSucceed(pod) }

func probesSucceed(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podServices maps the services that the pod is an endpoint of to its ports, and
// lists the policies that are bound to them, and the services themselves.
func podServices(m *podMemo, refs []sliceRef) (services map[string]*apiworkload.PortList, bound []string, list []*service) {
	services = map[string]*apiworkload.PortList{}
	for _, s := range m.namespace.selectors.find(m.pod.Labels) {
		ports := &apiworkload.PortList{}
		for _, p := range s.ports {
			target := p.target
			if p.targetName != "" {
				target = containerPort(m.pod, p.targetName)
			}
			if target != 0 { // this pod has no port of that name
				ports.Ports = append(ports.Ports, p.proto(target))
			}
		}
		services[s.resource.Name] = ports
		bound, list = append(bound, s.policies...), append(list, s)
	}
	for _, ref := range refs {
		if !ref.ready && ready(m.pod) {
			continue // who keeps the slice wants no traffic for a pod that could take it
		}
		if s := addSlicePorts(services, ref.slice, m.namespace); s != nil {
			bound, list = append(bound, s.policies...), append(list, s)
		}
	}
	bound = append(bound, m.namespace.gatewayPolicies(m.pod.Labels, m.pod.Namespace)...)
	if len(services) == 0 {
		return nil, bound, list
	}
	return services, bound, list
}

// addSlicePorts adds the ports that a slice gives its endpoints and returns the
// service, nil when there is none. A service has several slices when its
// endpoints differ in their ports or families.
func addSlicePorts(services map[string]*apiworkload.PortList, ref *slice, ns *namespace) *service {
	s := ns.byName[ref.service.Name]
	if s == nil {
		return nil
	}
	list := services[s.resource.Name]
	if list == nil {
		list = &apiworkload.PortList{}
		services[s.resource.Name] = list
	}
	for _, p := range s.ports {
		target, ok := ref.ports[p.name]
		if !ok || hasPort(list, p.number) {
			continue
		}
		list.Ports = append(list.Ports, p.proto(target))
	}
	return s
}

func hasPort(list *apiworkload.PortList, number uint32) bool {
	for _, p := range list.Ports {
		if p.ServicePort == number {
			return true
		}
	}
	return false
}

// containerPort finds the TCP port of that name, 0 when there is none. Init
// containers count when they run beside the others.
func containerPort(pod *corev1.Pod, name string) uint32 {
	find := func(c *corev1.Container) uint32 {
		for _, p := range c.Ports {
			if p.Name == name && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
				return uint32(p.ContainerPort)
			}
		}
		return 0
	}
	for i := range pod.Spec.Containers {
		if port := find(&pod.Spec.Containers[i]); port != 0 {
			return port
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if port := find(c); port != 0 {
				return port
			}
		}
	}
	return 0
}
