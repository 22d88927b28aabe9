package translate

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// slice is one EndpointSlice of a service and what became of its endpoints.
type slice struct {
	object  *discoveryv1.EndpointSlice
	name    source.Name
	service source.Name
	ports   map[string]uint32 // TCP, by name

	strays   []string                // addresses of endpoints that refer to no pod
	attached map[source.Name]bool    // pods, true where the endpoint is ready
	others   []*discoveryv1.Endpoint // endpoints that are no known pod
	made     []string                // UIDs of the workloads made of others
}

// sliceRef is a slice that names a pod.
type sliceRef struct {
	slice *slice
	ready bool
}

// sliceIndex holds what EndpointSlices say.
type sliceIndex struct {
	parsed   map[source.Name]*slice
	pods     map[source.Name][]sliceRef // the slices that name a pod, by their names
	strays   map[string]map[*slice]bool // the slices with a stray at an address
	services map[source.Name]int        // slices by service
}

func newSliceIndex() sliceIndex {
	return sliceIndex{
		parsed: map[source.Name]*slice{}, pods: map[source.Name][]sliceRef{}, strays: map[string]map[*slice]bool{}, services: map[source.Name]int{},
	}
}

// updateSlices takes in the slices that changed, but for whom they name.
func (t *Translator) updateSlices(u *update) {
	x := &t.slices
	for _, name := range u.slices {
		if old := x.parsed[name]; old != nil {
			delete(x.parsed, name)
			u.dirtySlices[old] = true
			if x.services[old.service]--; x.services[old.service] == 0 {
				delete(x.services, old.service)
				t.rejoin(u, old.service)
			}
			for _, address := range old.strays {
				if delete(x.strays[address], old); len(x.strays[address]) == 0 {
					delete(x.strays, address)
				}
			}
			x.attach(u, old, nil)
		}
		s := parseSlice(name, u.objects.EndpointSlices[name])
		if s == nil {
			continue
		}
		x.parsed[name] = s
		u.dirtySlices[s] = true
		if x.services[s.service]++; x.services[s.service] == 1 {
			t.rejoin(u, s.service)
		}
		for _, address := range s.strays {
			if x.strays[address] == nil {
				x.strays[address] = map[*slice]bool{}
			}
			x.strays[address][s] = true
		}
	}
}

// rejoin has the endpoints of a service found anew that got its first slice or
// lost its last one: where files are the whole truth, slices stand for the
// selector.
func (t *Translator) rejoin(u *update, service source.Name) {
	if !t.options.Kubernetes {
		u.namespaces[service.Namespace] = true
	}
}

// parseSlice returns nil for slices that say nothing of their own: of no
// service, of names instead of addresses, or written from the service's selector.
func parseSlice(name source.Name, object *discoveryv1.EndpointSlice) *slice {
	if object == nil || object.AddressType == discoveryv1.AddressTypeFQDN || object.Labels[source.LabelServiceName] == "" ||
		object.Labels[source.LabelSliceManagedBy] == source.EndpointSliceController {
		return nil
	}
	s := &slice{
		object: object, name: name, service: source.Name{Namespace: name.Namespace, Name: object.Labels[source.LabelServiceName]}, ports: map[string]uint32{},
	}
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
	for i := range object.Endpoints {
		if e := &object.Endpoints[i]; len(e.Addresses) > 0 && !refersToPod(e) {
			s.strays = append(s.strays, e.Addresses[0])
		}
	}
	return s
}

func refersToPod(e *discoveryv1.Endpoint) bool {
	return e.TargetRef != nil && e.TargetRef.Kind == "Pod"
}

// endpointReady reads the condition, which counts as true when it is not there.
func endpointReady(e *discoveryv1.Endpoint) bool {
	return e.Conditions.Ready == nil || *e.Conditions.Ready
}

// resolveSlices finds the pod of each endpoint: the one it refers to, or else,
// where it refers to none, the one that has its address. The second keeps
// traffic to a hand-written slice's endpoint encrypted where a pod of the mesh
// answers there. A pod that is referred to and unknown is gone or still to come;
// its address must not be used without knowing who it is.
func (t *Translator) resolveSlices(u *update) {
	x := &t.slices
	for s := range u.dirtySlices {
		if x.parsed[s.name] != s {
			continue
		}
		attached := map[source.Name]bool{}
		s.others = nil
		for i := range s.object.Endpoints {
			e := &s.object.Endpoints[i]
			switch {
			case len(e.Addresses) == 0:
			case refersToPod(e):
				if ref := e.TargetRef; ref.Namespace == "" || ref.Namespace == s.name.Namespace {
					name := source.Name{Namespace: s.name.Namespace, Name: ref.Name}
					attached[name] = attached[name] || endpointReady(e)
				}
			default:
				if name, ok := t.pods.at(e.Addresses[0]); ok && name.Namespace == s.name.Namespace {
					attached[name] = attached[name] || endpointReady(e)
				} else {
					s.others = append(s.others, e)
				}
			}
		}
		x.attach(u, s, attached)
	}
}

// attach makes the slice name these pods and no others.
func (x *sliceIndex) attach(u *update, s *slice, pods map[source.Name]bool) {
	for name, was := range s.attached {
		if is, ok := pods[name]; ok && is == was {
			continue
		}
		refs := slices.DeleteFunc(slices.Clone(x.pods[name]), func(r sliceRef) bool { return r.slice == s })
		if x.pods[name] = refs; len(refs) == 0 {
			delete(x.pods, name)
		}
		u.dirtyPods[name] = true
	}
	for name, is := range pods {
		if was, ok := s.attached[name]; ok && is == was {
			continue
		}
		refs := append(slices.Clone(x.pods[name]), sliceRef{slice: s, ready: is})
		slices.SortFunc(refs, func(a, b sliceRef) int { return cmp.Compare(a.slice.name.Name, b.slice.name.Name) })
		x.pods[name] = refs
		u.dirtyPods[name] = true
	}
	s.attached = pods
}
