package workload

import (
	"fmt"
	"math"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	api "github.com/tulle-mesh/tulle/api/workload"
)

func parseService(in *api.Service) (*Service, error) {
	var p parser
	s := &Service{
		Name:               p.text("name", in.GetName(), ""),
		Namespace:          p.required("namespace", in.GetNamespace()),
		Hostname:           p.required("hostname", in.GetHostname()),
		Ports:              p.ports("ports", in.GetPorts()),
		Waypoint:           p.gateway("waypoint", in.GetWaypoint()),
		Canonical:          in.GetCanonical(),
		IngressUseWaypoint: in.GetIngressUseWaypoint(),
	}
	if key, ok := ParseServiceKey(s.Key().String()); !ok || key != s.Key() {
		// Removals tell services from workloads by the separators.
		p.fail("hostname", "%q in namespace %q cannot be told from other names", clip(s.Hostname), clip(s.Namespace))
	}
	s.VIPs = p.vips(in.GetAddresses())
	s.SubjectAltNames = p.sans(in.GetSubjectAltNames())
	s.LoadBalancing = p.loadBalancing(in.GetLoadBalancing())
	s.WeightedWaypoints = p.weightedWaypoints(in.GetWeightedWaypoints())
	switch v := in.GetIpFamilies(); v {
	case api.IPFamilies_AUTOMATIC, api.IPFamilies_IPV4_ONLY, api.IPFamilies_IPV6_ONLY, api.IPFamilies_DUAL:
		s.IPFamilies = IPFamilies(v)
	default:
		p.fail("ip_families", "unknown value %d", v)
	}
	switch v := in.GetVisibility(); v {
	case api.Service_PUBLIC:
	case api.Service_NAMESPACE:
		s.NamespaceOnly = true
	default:
		p.fail("visibility", "unknown value %d", v)
	}
	if err := p.result(); err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) vips(in []*api.NetworkAddress) []NetworkAddress {
	if !p.count("addresses", len(in), maxVIPs) || len(in) == 0 {
		return nil
	}
	out := make([]NetworkAddress, len(in))
	for i, a := range in {
		at := fmt.Sprintf("addresses[%d]", i)
		addr := p.addr(at+".address", a.GetAddress())
		if p.err != nil {
			return nil
		}
		bits := addr.BitLen()
		if a.Length != nil {
			// A mapped address is written with its length in 128 bits.
			bits = int(min(a.GetLength(), math.MaxUint8)) - (len(a.GetAddress())*8 - addr.BitLen())
		}
		prefix, err := addr.Prefix(bits)
		if err != nil {
			p.fail(at+".length", "%d is not a prefix length of %s", a.GetLength(), addr)
			return nil
		}
		out[i] = NetworkAddress{Network: p.text(at+".network", a.GetNetwork(), ""), Prefix: prefix}
	}
	return out
}

func (p *parser) sans(in []string) []spiffeid.ID {
	if !p.count("subject_alt_names", len(in), maxSANs) || len(in) == 0 {
		return nil
	}
	out := make([]spiffeid.ID, len(in))
	for i, s := range in {
		at := fmt.Sprintf("subject_alt_names[%d]", i)
		if len(s) > maxSPIFFEBytes {
			p.fail(at, "is longer than %d bytes", maxSPIFFEBytes)
			return nil
		}
		id, err := spiffeid.FromString(s)
		if err != nil {
			p.fail(at, "%q: %v", clip(s), err)
			return nil
		}
		out[i] = id
	}
	return out
}

func (p *parser) loadBalancing(in *api.LoadBalancing) LoadBalancing {
	var out LoadBalancing
	if in == nil || !p.count("load_balancing.routing_preference", len(in.GetRoutingPreference()), maxScopes) {
		return out
	}
	for i, v := range in.GetRoutingPreference() {
		if v <= api.LoadBalancing_UNSPECIFIED_SCOPE || v > api.LoadBalancing_NETWORK {
			p.fail(fmt.Sprintf("load_balancing.routing_preference[%d]", i), "unknown value %d", v)
			return out
		}
		out.Preference = append(out.Preference, Scope(v))
	}
	switch v := in.GetMode(); v {
	case api.LoadBalancing_UNSPECIFIED_MODE, api.LoadBalancing_STRICT,
		api.LoadBalancing_FAILOVER, api.LoadBalancing_PASSTHROUGH:
		out.Mode = Mode(v)
	default:
		p.fail("load_balancing.mode", "unknown value %d", v)
	}
	switch v := in.GetHealthPolicy(); v {
	case api.LoadBalancing_ONLY_HEALTHY:
	case api.LoadBalancing_ALLOW_ALL:
		out.AllowUnhealthy = true
	default:
		p.fail("load_balancing.health_policy", "unknown value %d", v)
	}
	return out
}

func (p *parser) weightedWaypoints(in []*api.WeightedWaypoint) []WeightedWaypoint {
	if !p.count("weighted_waypoints", len(in), maxWeightedWaypoints) || len(in) == 0 {
		return nil
	}
	out := make([]WeightedWaypoint, len(in))
	for i, w := range in {
		at := fmt.Sprintf("weighted_waypoints[%d].destination", i)
		g := p.gateway(at, w.GetDestination())
		if g == nil {
			p.fail(at, "is not set")
			return nil
		}
		out[i] = WeightedWaypoint{GatewayAddress: *g, Weight: w.GetWeight()}
	}
	return out
}
