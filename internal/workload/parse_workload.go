package workload

import (
	"fmt"
	"net/netip"
	"strings"
	"unique"

	api "github.com/tulle-mesh/tulle/api/workload"
)

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
