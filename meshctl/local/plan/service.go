package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
)

func (p *Plan) placeServices(set *manifest.Set, prev *Plan) []error {
	var (
		errs []error
		free = newPool(maxServices, p.serviceNext)
		held = map[netip.Addr]string{}
		old  = map[string]*Service{}
	)
	if prev != nil {
		for _, s := range prev.Services {
			old[s.Namespace+"/"+s.Name] = s
			if s.offset >= 0 {
				free.used[s.offset] = true
			}
		}
	}
	// The user's own addresses go first; allocation steps around them.
	objects := set.OfKind("Service")
	fixed := func(o *manifest.Object) bool { return len(ownAddresses(o.Value.(*corev1.Service))) > 0 }
	slices.SortStableFunc(objects, func(a, b *manifest.Object) int {
		switch {
		case fixed(a) == fixed(b):
			return 0
		case fixed(a):
			return -1
		}
		return 1
	})
	for _, o := range objects {
		object := o.Value.(*corev1.Service).DeepCopy()
		object.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		s := &Service{Namespace: o.Namespace, Name: o.Name, Object: object, offset: -1}
		err := s.address(free, held, old[o.Namespace+"/"+o.Name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", o.Key, err))
			continue
		}
		p.Services = append(p.Services, s)
	}
	p.serviceNext = free.next
	slices.SortFunc(p.Services, func(a, b *Service) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return errs
}

func (s *Service) address(free *pool, held map[netip.Addr]string, old *Service) error {
	spec := &s.Object.Spec
	if spec.ClusterIP == corev1.ClusterIPNone {
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return nil
	}
	own := ownAddresses(s.Object)
	if len(own) > 0 {
		for _, a := range own {
			if other, taken := held[a]; taken {
				return fmt.Errorf("spec.clusterIP: %v is already Service %s's", a, other)
			}
			held[a] = s.Namespace + "/" + s.Name
			if a.Is4() {
				s.IPv4 = a
			} else {
				s.IPv6 = a
			}
		}
	} else {
		offset := -1
		if old != nil {
			offset = old.offset
		}
		for offset < 0 {
			n, ok := free.take()
			if !ok {
				return errors.New("no service address is free")
			}
			if held[nth(service4.Addr(), n+10)] == "" && held[nth(service6.Addr(), n+10)] == "" {
				offset = n
			}
		}
		s.offset = offset
		families := spec.IPFamilies
		if len(families) == 0 {
			families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}
		if slices.Contains(families, corev1.IPv4Protocol) {
			s.IPv4 = nth(service4.Addr(), offset+10)
		}
		if slices.Contains(families, corev1.IPv6Protocol) {
			s.IPv6 = nth(service6.Addr(), offset+10)
		}
	}
	spec.ClusterIPs = nil
	for _, a := range s.Addresses() {
		spec.ClusterIPs = append(spec.ClusterIPs, a.String())
	}
	if len(spec.ClusterIPs) == 0 {
		return errors.New("spec.ipFamilies: names neither IPv4 nor IPv6")
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	return nil
}

// Addresses lists the virtual addresses that the service has.
func (s *Service) Addresses() []netip.Addr {
	var list []netip.Addr
	for _, a := range []netip.Addr{s.IPv4, s.IPv6} {
		if a.IsValid() {
			list = append(list, a)
		}
	}
	return list
}

func ownAddresses(s *corev1.Service) []netip.Addr {
	var list []netip.Addr
	for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// Forward sends what arrives at one virtual address and port to backends.
type Forward struct {
	Name     string // "namespace/name:port", for error messages
	VIP      netip.AddrPort
	UDP      bool
	Backends []netip.AddrPort
}

// Forwards lists what kube-proxy would do for pods that are not in the mesh.
// ready tells which pods take part.
func (p *Plan) Forwards(ready func(PodKey) bool) []Forward {
	var list []Forward
	for _, s := range p.Services {
		backends := p.backends(s, ready)
		for _, port := range s.Object.Spec.Ports {
			for _, vip := range s.Addresses() {
				f := Forward{
					Name: fmt.Sprintf("%s/%s:%d", s.Namespace, s.Name, port.Port),
					VIP:  netip.AddrPortFrom(vip, uint16(port.Port)),
					UDP:  port.Protocol == corev1.ProtocolUDP,
				}
				for _, pod := range backends {
					target, ok := targetPort(port, pod.Object)
					if !ok {
						continue
					}
					ip := pod.IPv4
					if vip.Is6() {
						ip = pod.IPv6
					}
					f.Backends = append(f.Backends, netip.AddrPortFrom(ip, target))
				}
				f.Backends = append(f.Backends, p.slices(s, port, vip.Is4())...)
				list = append(list, f)
			}
		}
	}
	return list
}

func (p *Plan) backends(s *Service, ready func(PodKey) bool) []*Pod {
	var list []*Pod
	if len(s.Object.Spec.Selector) == 0 {
		return nil
	}
	for _, pod := range p.Pods {
		if pod.Namespace != s.Namespace || !matches(s.Object.Spec.Selector, pod.Object.Labels) {
			continue
		}
		if ready(pod.PodKey) || s.Object.Spec.PublishNotReadyAddresses {
			list = append(list, pod)
		}
	}
	return list
}

// slices lists what EndpointSlices, which users write for services without a
// selector, say of one port.
func (p *Plan) slices(s *Service, port corev1.ServicePort, ipv4 bool) []netip.AddrPort {
	var list []netip.AddrPort
	for _, o := range p.Others {
		slice, ok := o.Value.(*discoveryv1.EndpointSlice)
		if !ok || o.Namespace != s.Namespace || o.Meta.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for _, sp := range slice.Ports {
			if sp.Port == nil || (sp.Name != nil && *sp.Name != port.Name) || (sp.Name == nil && port.Name != "") {
				continue
			}
			for _, ep := range slice.Endpoints {
				if ready := ep.Conditions.Ready; ready != nil && !*ready {
					continue
				}
				for _, text := range ep.Addresses {
					if ip, err := netip.ParseAddr(text); err == nil && ip.Is4() == ipv4 {
						list = append(list, netip.AddrPortFrom(ip, uint16(*sp.Port)))
					}
				}
			}
		}
	}
	return list
}

// targetPort resolves a port of a service on one pod; named ports may differ
// from pod to pod.
func targetPort(port corev1.ServicePort, pod *corev1.Pod) (uint16, bool) {
	if name := port.TargetPort.StrVal; name != "" {
		for _, c := range pod.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == name {
					return uint16(cp.ContainerPort), true
				}
			}
		}
		return 0, false
	}
	if port.TargetPort.IntVal != 0 {
		return uint16(port.TargetPort.IntVal), true
	}
	return uint16(port.Port), true
}

// Ready counts the pods that a service would send connections to.
func (p *Plan) Ready(s *Service, ready func(PodKey) bool) int { return len(p.backends(s, ready)) }
