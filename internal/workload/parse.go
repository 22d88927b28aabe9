package workload

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"
	"unique"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	api "github.com/tulle-mesh/tulle/api/workload"
)

// FieldError says which field of a resource is wrong.
type FieldError struct {
	// Field is the path in the spelling of workload.proto, for example
	// "services[shop/web].ports[2].target_port".
	Field  string
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func fieldError(field, format string, args ...any) *FieldError {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// clip shortens what a peer sent for use in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// FromProto parses an Address: exactly one of the results is set. The error
// names the resource and, as a wrapped *FieldError, the field. Enum values that
// this proxy does not know are errors: guessing a protocol or a mode could send
// plaintext. Fields that it does not know, and extensions, are ignored, as
// they are by Istio's proxy.
func FromProto(a *api.Address) (*Workload, *Service, error) {
	switch t := a.GetType().(type) {
	case *api.Address_Workload:
		w, err := parseWorkload(t.Workload)
		if err != nil {
			return nil, nil, fmt.Errorf("workload %q: %w", clip(t.Workload.GetUid()), err)
		}
		return w, nil, nil
	case *api.Address_Service:
		s, err := parseService(t.Service)
		if err != nil {
			return nil, nil, fmt.Errorf("service %q: %w",
				clip(t.Service.GetNamespace()+"/"+t.Service.GetHostname()), err)
		}
		return nil, s, nil
	default:
		return nil, nil, fieldError("type", "neither workload nor service is set")
	}
}

// parser remembers the first error, so that the parse reads as a list of fields.
type parser struct{ err *FieldError }

func (p *parser) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = fieldError(field, format, args...)
	}
}

// result is nil, and not a typed nil, when nothing failed.
func (p *parser) result() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

// text checks a short name and returns the mesh-wide shared copy of it: ten
// thousand workloads repeat few namespaces, nodes and accounts.
func (p *parser) text(field, s, def string) string {
	if s == "" {
		return def
	}
	if len(s) > maxNameBytes {
		p.fail(field, "%q is longer than %d bytes", clip(s), maxNameBytes)
		return ""
	}
	if !clean(s) {
		p.fail(field, "%q has control characters or is not UTF-8", clip(s))
		return ""
	}
	return unique.Make(s).Value()
}

func (p *parser) required(field, s string) string {
	if s == "" {
		p.fail(field, "is empty")
	}
	return p.text(field, s, "")
}

// clean reports that s can stand in logs and headers.
func clean(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

func (p *parser) addr(field string, b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		p.fail(field, "has %d bytes, not 4 or 16", len(b))
		return netip.Addr{}
	}
	return a.Unmap()
}

func (p *parser) port(field string, n uint32, zero bool) uint16 {
	if n > math.MaxUint16 || n == 0 && !zero {
		p.fail(field, "%d is not a port", n)
		return 0
	}
	return uint16(n)
}

// count checks a list's length before anything is allocated for it.
func (p *parser) count(field string, n, most int) bool {
	if n > most {
		p.fail(field, "has %d entries, more than %d", n, most)
		return false
	}
	return p.err == nil
}

func (p *parser) ports(field string, in []*api.Port) []Port {
	if !p.count(field, len(in), maxPorts) || len(in) == 0 {
		return nil
	}
	out := make([]Port, len(in))
	for i, port := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		app := port.GetAppProtocol()
		if _, ok := api.AppProtocol_name[int32(app)]; !ok {
			p.fail(at+".app_protocol", "unknown value %d", app)
		}
		out[i] = Port{
			Service: p.port(at+".service_port", port.GetServicePort(), false),
			Target:  p.port(at+".target_port", port.GetTargetPort(), true),
			App:     AppProtocol(app),
		}
	}
	return out
}

func (p *parser) gateway(field string, g *api.GatewayAddress) *GatewayAddress {
	if g == nil {
		return nil
	}
	out := &GatewayAddress{Port: p.port(field+".hbone_mtls_port", g.GetHboneMtlsPort(), true)}
	if out.Port == 0 {
		out.Port = DefaultTunnelPort
	}
	switch d := g.GetDestination().(type) {
	case *api.GatewayAddress_Hostname:
		out.Hostname.Namespace = p.required(field+".hostname.namespace", d.Hostname.GetNamespace())
		out.Hostname.Hostname = p.required(field+".hostname.hostname", d.Hostname.GetHostname())
	case *api.GatewayAddress_Address:
		out.Network = p.text(field+".address.network", d.Address.GetNetwork(), "")
		out.Addr = p.addr(field+".address.address", d.Address.GetAddress())
		if d.Address.Length != nil && int(d.Address.GetLength()) != out.Addr.BitLen() {
			p.fail(field+".address.length", "%d is not a single address", d.Address.GetLength())
		}
	default:
		// A waypoint that we do not understand must not be skipped.
		p.fail(field+".destination", "is not set")
	}
	return out
}

func parseWorkload(in *api.Workload) (*Workload, error) {
	var p parser
	if len(in.GetUid()) > maxUIDBytes {
		p.fail("uid", "is longer than %d bytes", maxUIDBytes)
	} else if in.GetUid() == "" {
		p.fail("uid", "is empty")
	} else if strings.Count(in.GetUid(), "/") < 2 {
		// Removals tell workloads from services by the separators.
		p.fail("uid", "%q is not cluster/group/kind/namespace/name", clip(in.GetUid()))
	} else if !clean(in.GetUid()) {
		p.fail("uid", "has control characters or is not UTF-8")
	}
	w := &Workload{
		UID:               in.GetUid(),
		Name:              p.text("name", in.GetName(), ""),
		Namespace:         p.required("namespace", in.GetNamespace()),
		ServiceAccount:    p.text("service_account", in.GetServiceAccount(), DefaultServiceAccount),
		TrustDomain:       p.text("trust_domain", in.GetTrustDomain(), DefaultTrustDomain),
		Hostname:          p.text("hostname", in.GetHostname(), ""),
		Network:           p.text("network", in.GetNetwork(), ""),
		Node:              p.text("node", in.GetNode(), ""),
		ClusterID:         p.text("cluster_id", in.GetClusterId(), DefaultClusterID),
		CanonicalName:     p.text("canonical_name", in.GetCanonicalName(), ""),
		CanonicalRevision: p.text("canonical_revision", in.GetCanonicalRevision(), ""),
		WorkloadName:      p.text("workload_name", in.GetWorkloadName(), ""),
		NativeTunnel:      in.GetNativeTunnel(),
		Capacity:          1,
		Waypoint:          p.gateway("waypoint", in.GetWaypoint()),
		NetworkGateway:    p.gateway("network_gateway", in.GetNetworkGateway()),
		Locality: Locality{
			Region:  p.text("locality.region", in.GetLocality().GetRegion(), ""),
			Zone:    p.text("locality.zone", in.GetLocality().GetZone(), ""),
			Subzone: p.text("locality.subzone", in.GetLocality().GetSubzone(), ""),
		},
	}
	if in.GetCapacity() != nil {
		w.Capacity = in.GetCapacity().GetValue()
	}
	p.workloadEnums(w, in)
	w.Addresses = p.addresses(in.GetAddresses())
	w.Services = p.services(in.GetServices())
	w.AuthorizationPolicies = p.policies(in.GetAuthorizationPolicies())
	if at := in.GetApplicationTunnel(); at != nil {
		if _, ok := api.ApplicationTunnel_Protocol_name[int32(at.GetProtocol())]; !ok {
			p.fail("application_tunnel.protocol", "unknown value %d", at.GetProtocol())
		}
		w.ApplicationTunnel = &ApplicationTunnel{
			Proxy: at.GetProtocol() == api.ApplicationTunnel_PROXY,
			Port:  p.port("application_tunnel.port", at.GetPort(), true),
		}
	}
	if err := p.result(); err != nil {
		return nil, err
	}
	id, err := NewIdentity(w.TrustDomain, w.Namespace, w.ServiceAccount)
	if err != nil {
		return nil, err
	}
	w.identity = id
	return w, nil
}

func (p *parser) workloadEnums(w *Workload, in *api.Workload) {
	switch v := in.GetTunnelProtocol(); v {
	case api.TunnelProtocol_NONE:
		w.Protocol = None
	case api.TunnelProtocol_HBONE:
		w.Protocol = HBONE
	case api.TunnelProtocol_LEGACY_ISTIO_MTLS:
		w.Protocol = LegacyIstioMTLS
	default:
		p.fail("tunnel_protocol", "unknown value %d", v)
	}
	switch v := in.GetWorkloadType(); v {
	case api.WorkloadType_DEPLOYMENT:
		w.Type = Deployment
	case api.WorkloadType_CRONJOB:
		w.Type = CronJob
	case api.WorkloadType_POD:
		w.Type = Pod
	case api.WorkloadType_JOB:
		w.Type = Job
	default:
		p.fail("workload_type", "unknown value %d", v)
	}
	switch v := in.GetStatus(); v {
	case api.WorkloadStatus_HEALTHY:
		w.Healthy = true
	case api.WorkloadStatus_UNHEALTHY:
		w.Healthy = false
	default:
		p.fail("status", "unknown value %d", v)
	}
	switch v := in.GetNetworkMode(); v {
	case api.NetworkMode_STANDARD:
		w.HostNetwork = false
	case api.NetworkMode_HOST_NETWORK:
		w.HostNetwork = true
	default:
		p.fail("network_mode", "unknown value %d", v)
	}
}

func (p *parser) addresses(in [][]byte) []netip.Addr {
	if !p.count("addresses", len(in), maxAddresses) || len(in) == 0 {
		return nil
	}
	out := make([]netip.Addr, len(in))
	for i, b := range in {
		at := fmt.Sprintf("addresses[%d]", i)
		out[i] = p.addr(at, b)
		if a := out[i]; a.IsValid() && (a.IsUnspecified() || a.IsMulticast()) {
			p.fail(at, "%s is not a host's address", a)
		}
	}
	return out
}

func (p *parser) services(in map[string]*api.PortList) map[ServiceKey][]Port {
	if !p.count("services", len(in), maxServices) || len(in) == 0 {
		return nil
	}
	out := make(map[ServiceKey][]Port, len(in))
	for name, ports := range in {
		at := fmt.Sprintf("services[%s]", clip(name))
		key, ok := ParseServiceKey(name)
		if !ok {
			p.fail(at, "is not namespace/hostname")
			return nil
		}
		key.Namespace = p.required(at, key.Namespace)
		key.Hostname = p.required(at, key.Hostname)
		out[key] = p.ports(at+".ports", ports.GetPorts())
	}
	return out
}

func (p *parser) policies(in []string) []string {
	if !p.count("authorization_policies", len(in), maxPolicies) || len(in) == 0 {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		at := fmt.Sprintf("authorization_policies[%d]", i)
		// namespace/name: two names and a separator.
		if s == "" || len(s) > 2*maxNameBytes+1 || !clean(s) {
			p.fail(at, "%q is not namespace/name", clip(s))
			return nil
		}
		out[i] = unique.Make(s).Value()
	}
	return out
}

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

// ParseServiceKey splits "namespace/hostname".
func ParseServiceKey(s string) (ServiceKey, bool) {
	namespace, hostname, ok := strings.Cut(s, "/")
	ok = ok && namespace != "" && hostname != "" && !strings.Contains(hostname, "/")
	return ServiceKey{Namespace: namespace, Hostname: hostname}, ok
}
