package translate

import (
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// service is a translated Service, or one host of a ServiceEntry, and what its
// endpoints need to know of it.
type service struct {
	proto    *apiworkload.Service
	resource *Resource
	selector map[string]string
	ports    []servicePort
	policies []string // bound to the service or to its waypoint
	bound    []string // the same, but those that node proxies know nothing of, too

	key source.Key // the Service or ServiceEntry
	// waypoint is the one that it asks for and may have, nil for none; it need not
	// be ready.
	waypoint *waypoint
	// canary is the second waypoint, nil for none; it need not be ready.
	canary *waypoint
	// maySkip says that node proxies may go past the waypoint while it is idle.
	maySkip, idle bool
	// enforced names the policies that the waypoint enforces for the service, and
	// unsure those that select some of its endpoints perhaps and perhaps not, which
	// therefore the waypoint must leave to node proxies.
	enforced, unsure []string
	// requests names the RequestAuthentications by which the waypoint checks tokens.
	requests []string
}

// servicePort is one TCP port of a service.
type servicePort struct {
	name   string
	number uint32
	// target is the endpoint's port, 0 where targetName names it.
	target     uint32
	targetName string
	protocol   apiworkload.AppProtocol
}

func (p servicePort) proto(target uint32) *apiworkload.Port {
	return &apiworkload.Port{ServicePort: p.number, TargetPort: target, AppProtocol: p.protocol}
}

func (s *service) finish() *service {
	for _, p := range s.ports {
		s.proto.Ports = append(s.proto.Ports, p.proto(p.target))
	}
	s.resource = serviceResource(s.proto)
	return s
}

// kubernetesService returns nil for services that stand for a foreign name:
// clients resolve those by DNS and never meet an address of the service.
func kubernetesService(o Options, svc *corev1.Service, ns *corev1.Namespace) *service {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	s := &service{
		selector: svc.Spec.Selector,
		proto: &apiworkload.Service{
			Name:       svc.Name,
			Namespace:  svc.Namespace,
			Hostname:   o.hostname(source.Name{Namespace: svc.Namespace, Name: svc.Name}),
			IpFamilies: ipFamilies(svc.Spec.IPFamilies),
			Canonical:  true,
		},
	}
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 && svc.Spec.ClusterIP != "" {
		ips = []string{svc.Spec.ClusterIP}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil { // "None" of a headless service is no address
			s.proto.Addresses = append(s.proto.Addresses, &apiworkload.NetworkAddress{Network: o.Network, Address: a.AsSlice()})
		}
	}
	s.ports = kubernetesPorts(svc)
	s.proto.LoadBalancing = serviceBalancing(svc, ns)
	return s.finish()
}

func kubernetesPorts(svc *corev1.Service) []servicePort {
	var ports []servicePort
	for _, p := range svc.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue // the node proxies carry TCP only
		}
		port := servicePort{name: p.Name, number: uint32(p.Port), protocol: appProtocol(p.AppProtocol, p.Name)}
		switch {
		case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
			port.targetName = p.TargetPort.StrVal
		case p.TargetPort.IntVal != 0:
			port.target = uint32(p.TargetPort.IntVal)
		default:
			port.target = port.number
		}
		ports = append(ports, port)
	}
	return ports
}

func ipFamilies(families []corev1.IPFamily) apiworkload.IPFamilies {
	v4, v6 := slices.Contains(families, corev1.IPv4Protocol), slices.Contains(families, corev1.IPv6Protocol)
	switch {
	case v4 && v6:
		return apiworkload.IPFamilies_DUAL
	case v4:
		return apiworkload.IPFamilies_IPV4_ONLY
	case v6:
		return apiworkload.IPFamilies_IPV6_ONLY
	}
	return apiworkload.IPFamilies_AUTOMATIC
}

// appProtocol reads the protocol from the port's appProtocol, or else from the
// part of its name before the first dash, as Istio does.
func appProtocol(explicit *string, name string) apiworkload.AppProtocol {
	text, _, _ := strings.Cut(name, "-")
	if explicit != nil && *explicit != "" {
		text = *explicit
	}
	switch strings.ToLower(text) {
	case "http", "http1":
		return apiworkload.AppProtocol_HTTP11
	case "http2", "h2c", "kubernetes.io/h2c":
		return apiworkload.AppProtocol_HTTP2
	case "grpc", "grpc-web":
		return apiworkload.AppProtocol_GRPC
	case "tcp":
		return apiworkload.AppProtocol_TCP
	case "tls", "https":
		return apiworkload.AppProtocol_TLS
	}
	return apiworkload.AppProtocol_UNKNOWN
}

// serviceBalancing is nil for services without a preference.
func serviceBalancing(svc *corev1.Service, ns *corev1.Namespace) *apiworkload.LoadBalancing {
	var spec string
	if svc.Spec.TrafficDistribution != nil {
		spec = *svc.Spec.TrafficDistribution
	}
	lb := trafficDistribution(spec, svc.Annotations, ns)
	if itp := svc.Spec.InternalTrafficPolicy; itp != nil && *itp == corev1.ServiceInternalTrafficPolicyLocal {
		lb = &apiworkload.LoadBalancing{
			RoutingPreference: []apiworkload.LoadBalancing_Scope{apiworkload.LoadBalancing_NODE},
			Mode:              apiworkload.LoadBalancing_STRICT,
		}
	}
	if svc.Spec.PublishNotReadyAddresses {
		if lb == nil {
			lb = &apiworkload.LoadBalancing{}
		}
		lb.HealthPolicy = apiworkload.LoadBalancing_ALLOW_ALL
	}
	return lb
}

// trafficDistribution takes the first that is set: the field, the annotation,
// the namespace's annotation.
func trafficDistribution(spec string, annotations map[string]string, ns *corev1.Namespace) *apiworkload.LoadBalancing {
	if spec == "" {
		spec = annotations[source.AnnotationTrafficDistribution]
	}
	if spec == "" && ns != nil {
		spec = ns.Annotations[source.AnnotationTrafficDistribution]
	}
	near := []apiworkload.LoadBalancing_Scope{
		apiworkload.LoadBalancing_NETWORK, apiworkload.LoadBalancing_REGION, apiworkload.LoadBalancing_ZONE, apiworkload.LoadBalancing_SUBZONE,
	}
	switch spec {
	case "PreferClose", "PreferSameZone":
	case "PreferSameNode":
		near = append(near, apiworkload.LoadBalancing_NODE)
	default:
		return nil
	}
	return &apiworkload.LoadBalancing{RoutingPreference: near, Mode: apiworkload.LoadBalancing_FAILOVER}
}

// serviceEntry is a ServiceEntry and the services of its hosts.
type serviceEntry struct {
	object   *networkingv1.ServiceEntry
	services []*service
}

// entryServices returns one service for each host.
func entryServices(o Options, se *networkingv1.ServiceEntry, ns *corev1.Namespace) []*service {
	spec := &se.Spec
	var addresses []*apiworkload.NetworkAddress
	for _, text := range spec.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil && !p.IsSingleIP() {
			length := uint32(p.Bits())
			addresses = append(addresses, &apiworkload.NetworkAddress{Network: o.Network, Address: p.Masked().Addr().AsSlice(), Length: &length})
		} else if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimSuffix(text, "/32"), "/128")); err == nil {
			addresses = append(addresses, &apiworkload.NetworkAddress{Network: o.Network, Address: a.AsSlice()})
		}
	}
	ports := entryPorts(se)
	lb := trafficDistribution("", se.Annotations, ns)
	if spec.Resolution == networking.ServiceEntry_NONE {
		lb = &apiworkload.LoadBalancing{Mode: apiworkload.LoadBalancing_PASSTHROUGH}
	}
	services := make([]*service, 0, len(spec.Hosts))
	for _, host := range spec.Hosts {
		s := &service{
			selector: spec.GetWorkloadSelector().GetLabels(),
			ports:    ports,
			proto: &apiworkload.Service{
				Name:            se.Name,
				Namespace:       se.Namespace,
				Hostname:        host,
				Addresses:       addresses,
				SubjectAltNames: spec.SubjectAltNames,
				LoadBalancing:   lb,
			},
		}
		services = append(services, s.finish())
	}
	return services
}

func entryPorts(se *networkingv1.ServiceEntry) []servicePort {
	var ports []servicePort
	for _, p := range se.Spec.Ports {
		if strings.EqualFold(p.GetProtocol(), "UDP") {
			continue // the node proxies carry TCP only
		}
		port := servicePort{name: p.GetName(), number: p.GetNumber(), target: p.GetTargetPort()}
		if port.target == 0 {
			port.target = port.number
		}
		if protocol := p.GetProtocol(); protocol != "" {
			port.protocol = appProtocol(&protocol, "")
		} else {
			port.protocol = appProtocol(nil, p.GetName())
		}
		ports = append(ports, port)
	}
	return ports
}
