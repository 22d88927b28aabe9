package translate

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// slice is one EndpointSlice of a service, made ready for look-ups.
type slice struct {
	object  *discoveryv1.EndpointSlice
	name    source.Name
	service source.Name
	ports   map[string]uint32 // TCP, by name
}

// otherEndpoint is an endpoint that is no known pod.
type otherEndpoint struct {
	slice    *slice
	endpoint *discoveryv1.Endpoint
}

// sliceIndex holds what EndpointSlices say. A service that has any slice takes
// its endpoints from slices alone; for one without, its selector decides.
type sliceIndex struct {
	parsed   map[source.Name]*slice
	pods     map[source.Name][]*slice // the slices that name a pod
	others   []otherEndpoint
	services map[source.Name]int // slices by service
	// changedServices gained their first slice or lost their last one.
	changedServices map[source.Name]bool
}

func newSliceIndex(prev *sliceIndex, objects map[source.Name]*discoveryv1.EndpointSlice, pods map[source.Name]*corev1.Pod) *sliceIndex {
	if prev == nil {
		prev = &sliceIndex{}
	}
	x := &sliceIndex{
		parsed:          make(map[source.Name]*slice, len(objects)),
		pods:            map[source.Name][]*slice{},
		services:        map[source.Name]int{},
		changedServices: map[source.Name]bool{},
	}
	ordered := make([]*slice, 0, len(objects))
	for name, object := range objects {
		service := object.Labels[source.LabelServiceName]
		if service == "" || object.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		s := prev.parsed[name]
		if s == nil || s.object != object {
			s = parseSlice(name, service, object)
		}
		x.parsed[name] = s
		x.services[s.service]++
		ordered = append(ordered, s)
	}
	slices.SortFunc(ordered, func(a, b *slice) int {
		return cmp.Or(cmp.Compare(a.name.Namespace, b.name.Namespace), cmp.Compare(a.name.Name, b.name.Name))
	})
	x.resolve(ordered, pods)
	for name := range x.services {
		if prev.services[name] == 0 {
			x.changedServices[name] = true
		}
	}
	for name := range prev.services {
		if x.services[name] == 0 {
			x.changedServices[name] = true
		}
	}
	return x
}

func parseSlice(name source.Name, service string, object *discoveryv1.EndpointSlice) *slice {
	s := &slice{object: object, name: name, service: source.Name{Namespace: name.Namespace, Name: service}, ports: map[string]uint32{}}
	for _, p := range object.Ports {
		if p.Port == nil || (p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP) {
			continue
		}
		var name string
		if p.Name != nil {
			name = *p.Name
		}
		s.ports[name] = uint32(*p.Port)
	}
	return s
}

// resolve finds the pod of each endpoint: the one it refers to, or else, where
// it refers to none, the one that has its address. The second keeps traffic to
// a hand-written slice's endpoint encrypted where a pod of the mesh answers
// there. A pod that is referred to and unknown is gone or still to come; its
// address must not be used without knowing who it is.
func (x *sliceIndex) resolve(ordered []*slice, pods map[source.Name]*corev1.Pod) {
	var strays []otherEndpoint
	for _, s := range ordered {
		for i := range s.object.Endpoints {
			e := &s.object.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			if ref := e.TargetRef; ref != nil && ref.Kind == "Pod" {
				name := source.Name{Namespace: s.name.Namespace, Name: ref.Name}
				if ref.Namespace == "" || ref.Namespace == name.Namespace {
					x.attach(name, s)
				}
				continue
			}
			strays = append(strays, otherEndpoint{slice: s, endpoint: e})
		}
	}
	if len(strays) == 0 {
		return
	}
	wanted := make(map[string]source.Name, len(strays))
	for _, e := range strays {
		wanted[e.endpoint.Addresses[0]] = source.Name{}
	}
	for name, pod := range pods {
		if pod.Spec.HostNetwork || source.Ended(pod) {
			continue
		}
		for _, ip := range podIPs(pod) {
			if old, ok := wanted[ip]; ok && (old.Name == "" || less(name, old)) {
				wanted[ip] = name
			}
		}
	}
	for _, e := range strays {
		if name := wanted[e.endpoint.Addresses[0]]; name.Name != "" && name.Namespace == e.slice.name.Namespace {
			x.attach(name, e.slice)
		} else {
			x.others = append(x.others, e)
		}
	}
}

func (x *sliceIndex) attach(pod source.Name, s *slice) {
	if refs := x.pods[pod]; !slices.Contains(refs, s) {
		x.pods[pod] = append(refs, s)
	}
}

func less(a, b source.Name) bool {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name)) < 0
}
