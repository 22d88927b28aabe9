package translate

import (
	"cmp"
	"maps"
	"net/netip"
	"strconv"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"google.golang.org/protobuf/types/known/wrapperspb"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// entryWorkload makes a workload of a WorkloadEntry: a machine outside the
// cluster that services select by its labels. It may have a waypoint of its own.
func entryWorkload(o Options, we *networkingv1.WorkloadEntry, ns *namespace) (*apiworkload.Workload, *passage) {
	labels := laidOver(we.Labels, we.Spec.Labels)
	services := ns.selectors.find(labels)
	var own *passage
	if _, err := netip.ParseAddr(we.Spec.GetAddress()); err == nil { // a name is nothing to connect to
		own = ns.passage(source.KeyOf(we), labels, services)
	}
	w := endpointWorkload(o, &we.Spec, we.Namespace, we.Name, labels, ns, services, own)
	w.Uid = workloadEntryUID(o.ClusterID, source.Name{Namespace: we.Namespace, Name: we.Name})
	if we.Annotations[source.AnnotationRedirection] == "enabled" {
		w.TunnelProtocol = apiworkload.TunnelProtocol_HBONE
	}
	for _, s := range services {
		addEntryPorts(w, s, &we.Spec)
	}
	own.lead(o, w)
	return w, own
}

// serviceEntryEndpoints makes workloads of the endpoints that a ServiceEntry
// lists, or of its hosts where those are to be resolved by DNS.
func serviceEntryEndpoints(o Options, e serviceEntry, ns *namespace) []*Resource {
	se := e.object
	name := source.Name{Namespace: se.Namespace, Name: se.Name}
	var resources []*Resource
	dns := se.Spec.Resolution == networking.ServiceEntry_DNS || se.Spec.Resolution == networking.ServiceEntry_DNS_ROUND_ROBIN
	if len(se.Spec.Endpoints) == 0 && dns && se.Spec.WorkloadSelector == nil {
		for _, s := range e.services {
			endpoint := &networking.WorkloadEntry{Address: s.proto.GetHostname()}
			w := endpointWorkload(o, endpoint, se.Namespace, se.Name, se.Labels, ns, []*service{s}, nil)
			w.Uid = serviceEntryUID(o.ClusterID, name, endpoint.Address)
			addEntryPorts(w, s, endpoint)
			resources = append(resources, workloadResource(w))
		}
		return resources
	}
	seen := map[string]int{}
	for _, endpoint := range se.Spec.Endpoints {
		labels := laidOver(se.Labels, endpoint.GetLabels())
		w := endpointWorkload(o, endpoint, se.Namespace, se.Name, labels, ns, e.services, nil)
		w.Uid = serviceEntryUID(o.ClusterID, name, endpointSuffix(seen, endpoint.GetAddress()))
		for _, s := range e.services {
			addEntryPorts(w, s, endpoint)
		}
		resources = append(resources, workloadResource(w))
	}
	return resources
}

// laidOver has the labels of an object and, over them, those of a part of it.
func laidOver(labels, over map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, over)
	return out
}

// endpointSuffix tells an endpoint of a ServiceEntry from its others: one address may
// stand there with several ports. seen counts those before it.
func endpointSuffix(seen map[string]int, address string) string {
	n := seen[address]
	seen[address]++
	if n == 0 {
		return address
	}
	return address + "/" + strconv.Itoa(n)
}

// endpointWorkload makes the workload of an endpoint that is no pod, but for
// its UID and services. own is what its own waypoint does, nil without one.
func endpointWorkload(o Options, e *networking.WorkloadEntry, namespace, name string, labels map[string]string, ns *namespace, services []*service, own *passage) *apiworkload.Workload {
	var bound []string
	for _, s := range services {
		bound = append(bound, s.policies...)
	}
	bound = append(bound, ns.gatewayPolicies(labels, namespace)...)
	canonicalName, canonicalRevision := canonical(labels, name)
	w := &apiworkload.Workload{
		Name:                  name,
		Namespace:             namespace,
		Network:               cmp.Or(e.GetNetwork(), labels[source.LabelNetwork], o.Network),
		TrustDomain:           o.trustDomain(),
		ServiceAccount:        cmp.Or(e.GetServiceAccount(), "default"),
		CanonicalName:         canonicalName,
		CanonicalRevision:     canonicalRevision,
		WorkloadName:          name,
		WorkloadType:          apiworkload.WorkloadType_POD,
		ClusterId:             o.ClusterID,
		AuthorizationPolicies: ns.applied(labels, bound, own.among(services)),
		Locality:              entryLocality(e.GetLocality()),
	}
	if a, err := netip.ParseAddr(e.GetAddress()); err == nil {
		w.Addresses = [][]byte{a.AsSlice()}
	} else {
		w.Hostname = e.GetAddress()
	}
	if labels[source.LabelTunnel] == "http" {
		w.TunnelProtocol, w.NativeTunnel = apiworkload.TunnelProtocol_HBONE, true
	}
	if n := e.GetWeight(); n > 0 {
		w.Capacity = wrapperspb.UInt32(n)
	}
	return w
}

// addEntryPorts makes w an endpoint of s. An endpoint's own ports, by name, go
// before the service's target ports.
func addEntryPorts(w *apiworkload.Workload, s *service, e *networking.WorkloadEntry) {
	list := &apiworkload.PortList{}
	for _, p := range s.ports {
		target := p.target
		if own, ok := e.GetPorts()[cmp.Or(p.targetName, p.name)]; ok {
			target = own
		}
		if target != 0 {
			list.Ports = append(list.Ports, p.proto(target))
		}
	}
	if w.Services == nil {
		w.Services = map[string]*apiworkload.PortList{}
	}
	w.Services[s.resource.Name] = list
}

// sliceWorkload makes a workload of an EndpointSlice's endpoint that is no pod.
func sliceWorkload(o Options, s *slice, e *discoveryv1.Endpoint, uid string, ns *namespace) *apiworkload.Workload {
	w := &apiworkload.Workload{
		Uid:               uid,
		Name:              s.name.Name,
		Namespace:         s.name.Namespace,
		Network:           o.Network,
		TrustDomain:       o.trustDomain(),
		CanonicalName:     s.service.Name,
		CanonicalRevision: "latest",
		WorkloadName:      s.service.Name,
		WorkloadType:      apiworkload.WorkloadType_POD,
		ClusterId:         o.ClusterID,
	}
	for _, ip := range e.Addresses[:1] { // the others are not to be used (discovery/v1)
		if a, err := netip.ParseAddr(ip); err == nil {
			w.Addresses = append(w.Addresses, a.AsSlice())
		}
	}
	if n := e.NodeName; n != nil {
		w.Node = *n
	}
	if r := e.Conditions.Ready; r != nil && !*r {
		w.Status = apiworkload.WorkloadStatus_UNHEALTHY
	}
	services := map[string]*apiworkload.PortList{}
	addSlicePorts(services, s, ns)
	if len(services) > 0 {
		w.Services = services
	}
	return w
}
