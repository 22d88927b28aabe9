package state

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// Dump is the snapshot as the admin port shows it, in the JSON that
// `istioctl ztunnel-config` reads. Lists are sorted by name.
type Dump struct {
	Workloads []WorkloadDump  `json:"workloads"`
	Services  []ServiceDump   `json:"services"`
	Policies  []*authz.Policy `json:"policies"`
	// StagedServices holds endpoints of services that have not arrived:
	// "namespace/hostname" to uid to endpoint.
	StagedServices map[string]map[string]EndpointDump `json:"stagedServices"`
}

// WorkloadDump is one workload of a Dump.
type WorkloadDump struct {
	WorkloadIPs           []string       `json:"workloadIps"`
	Waypoint              *GatewayDump   `json:"waypoint,omitempty"`
	NetworkGateway        *GatewayDump   `json:"networkGateway,omitempty"`
	Protocol              string         `json:"protocol"`
	NetworkMode           string         `json:"networkMode"`
	UID                   string         `json:"uid"`
	Name                  string         `json:"name"`
	Namespace             string         `json:"namespace"`
	TrustDomain           string         `json:"trustDomain,omitempty"`
	ServiceAccount        string         `json:"serviceAccount"`
	Network               string         `json:"network,omitempty"`
	WorkloadName          string         `json:"workloadName"`
	WorkloadType          string         `json:"workloadType"`
	CanonicalName         string         `json:"canonicalName"`
	CanonicalRevision     string         `json:"canonicalRevision"`
	Hostname              string         `json:"hostname,omitempty"`
	Node                  string         `json:"node"`
	NativeTunnel          bool           `json:"nativeTunnel,omitempty"`
	ApplicationTunnel     *AppTunnelDump `json:"applicationTunnel,omitempty"`
	AuthorizationPolicies []string       `json:"authorizationPolicies,omitempty"`
	Status                string         `json:"status"`
	ClusterID             string         `json:"clusterId"`
	Locality              *LocalityDump  `json:"locality,omitempty"`
	Services              []string       `json:"services,omitempty"`
	Capacity              uint32         `json:"capacity"`
}

// GatewayDump is a waypoint or network gateway: "namespace/hostname" or
// "network/address".
type GatewayDump struct {
	Destination   string `json:"destination"`
	HBONEMTLSPort uint16 `json:"hboneMtlsPort"`
}

// AppTunnelDump is an application tunnel.
type AppTunnelDump struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
}

// LocalityDump is where a workload runs.
type LocalityDump struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"subzone,omitempty"`
}

// ServiceDump is one service of a Dump.
type ServiceDump struct {
	Name            string                  `json:"name"`
	Namespace       string                  `json:"namespace"`
	Hostname        string                  `json:"hostname"`
	VIPs            []string                `json:"vips"`
	Ports           map[string]uint16       `json:"ports"`
	Endpoints       map[string]EndpointDump `json:"endpoints"`
	SubjectAltNames []string                `json:"subjectAltNames,omitempty"`
	Waypoint        *GatewayDump            `json:"waypoint,omitempty"`
	LoadBalancer    *LoadBalancerDump       `json:"loadBalancer,omitempty"`
	IPFamilies      string                  `json:"ipFamilies,omitempty"`
	Canonical       bool                    `json:"canonical,omitempty"`
}

// LoadBalancerDump is how a service's endpoints are chosen.
type LoadBalancerDump struct {
	RoutingPreferences []string `json:"routingPreferences"`
	Mode               string   `json:"mode"`
	HealthPolicy       string   `json:"healthPolicy"`
}

// EndpointDump is one workload of a service.
type EndpointDump struct {
	WorkloadUID string            `json:"workloadUid"`
	Service     string            `json:"service"`
	Port        map[string]uint16 `json:"port"`
	Status      string            `json:"status"`
	Capacity    uint32            `json:"capacity"`
}

// Dump converts the snapshot. It costs time and memory of the order of the
// mesh's size.
func (s *Snapshot) Dump() Dump {
	d := Dump{
		Workloads:      make([]WorkloadDump, 0, s.workloads.Len()),
		Services:       make([]ServiceDump, 0, s.services.Len()),
		Policies:       make([]*authz.Policy, 0, s.policies.Len()),
		StagedServices: map[string]map[string]EndpointDump{},
	}
	s.workloads.Root().Walk(func(_ []byte, w *workload.Workload) bool {
		d.Workloads = append(d.Workloads, dumpWorkload(w))
		return false
	})
	s.services.Root().Walk(func(_ []byte, svc *workload.Service) bool {
		d.Services = append(d.Services, dumpService(svc, s.Endpoints(svc.Key())))
		return false
	})
	s.policies.Root().Walk(func(_ []byte, p *authz.Policy) bool {
		d.Policies = append(d.Policies, p)
		return false
	})
	s.endpoints.Root().Walk(func(k []byte, e Endpoints) bool {
		if key, ok := workload.ParseServiceKey(string(k)); ok && s.ServiceByHost(key) == nil {
			d.StagedServices[string(k)] = dumpEndpoints(key, e)
		}
		return false
	})
	return d
}

func dumpWorkload(w *workload.Workload) WorkloadDump {
	d := WorkloadDump{
		WorkloadIPs: make([]string, 0, len(w.Addresses)),
		Waypoint:    dumpGateway(w.Waypoint), NetworkGateway: dumpGateway(w.NetworkGateway),
		Protocol: w.Protocol.String(), NetworkMode: "Standard",
		UID: w.UID, Name: w.Name, Namespace: w.Namespace, TrustDomain: w.TrustDomain,
		ServiceAccount: w.ServiceAccount, Network: w.Network,
		WorkloadName: w.WorkloadName, WorkloadType: w.Type.String(),
		CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		Hostname: w.Hostname, Node: w.Node, NativeTunnel: w.NativeTunnel,
		AuthorizationPolicies: w.AuthorizationPolicies, Status: status(w), ClusterID: w.ClusterID,
		Capacity: w.Capacity,
	}
	for _, a := range w.Addresses {
		d.WorkloadIPs = append(d.WorkloadIPs, a.String())
	}
	if w.HostNetwork {
		d.NetworkMode = "HostNetwork"
	}
	if l := w.Locality; l != (workload.Locality{}) {
		d.Locality = &LocalityDump{Region: l.Region, Zone: l.Zone, Subzone: l.Subzone}
	}
	if t := w.ApplicationTunnel; t != nil {
		d.ApplicationTunnel = &AppTunnelDump{Protocol: "NONE", Port: t.Port}
		if t.Proxy {
			d.ApplicationTunnel.Protocol = "PROXY"
		}
	}
	for key := range w.Services {
		d.Services = append(d.Services, key.String())
	}
	slices.Sort(d.Services)
	return d
}

func status(w *workload.Workload) string {
	if w.Healthy {
		return "Healthy"
	}
	return "Unhealthy"
}

func dumpGateway(g *workload.GatewayAddress) *GatewayDump {
	if g == nil {
		return nil
	}
	return &GatewayDump{Destination: g.String(), HBONEMTLSPort: g.Port}
}

func dumpService(s *workload.Service, endpoints Endpoints) ServiceDump {
	d := ServiceDump{
		Name: s.Name, Namespace: s.Namespace, Hostname: s.Hostname,
		VIPs: make([]string, 0, len(s.VIPs)), Ports: dumpPorts(s.Ports),
		Endpoints: dumpEndpoints(s.Key(), endpoints),
		Waypoint:  dumpGateway(s.Waypoint), IPFamilies: s.IPFamilies.String(), Canonical: s.Canonical,
	}
	for _, v := range s.VIPs {
		d.VIPs = append(d.VIPs, v.Network+"/"+dumpPrefix(v.Prefix))
	}
	for _, id := range s.SubjectAltNames {
		d.SubjectAltNames = append(d.SubjectAltNames, id.String())
	}
	lb := s.LoadBalancing
	if len(lb.Preference) > 0 || lb.Mode != workload.ModeStandard || lb.AllowUnhealthy {
		out := &LoadBalancerDump{RoutingPreferences: []string{}, Mode: lb.Mode.String(), HealthPolicy: "OnlyHealthy"}
		for _, p := range lb.Preference {
			out.RoutingPreferences = append(out.RoutingPreferences, p.String())
		}
		if lb.AllowUnhealthy {
			out.HealthPolicy = "AllowAll"
		}
		d.LoadBalancer = out
	}
	return d
}

// dumpPrefix writes a single address without its length, as it was given.
func dumpPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func dumpPorts(ports []workload.Port) map[string]uint16 {
	out := make(map[string]uint16, len(ports))
	for _, p := range ports {
		out[strconv.Itoa(int(p.Service))] = p.Target
	}
	return out
}

func dumpEndpoints(key workload.ServiceKey, set Endpoints) map[string]EndpointDump {
	out := make(map[string]EndpointDump, set.Len())
	for w := range set.All() {
		out[w.UID] = EndpointDump{
			WorkloadUID: w.UID, Service: key.String(), Port: dumpPorts(w.Services[key]),
			Status: status(w), Capacity: w.Capacity,
		}
	}
	return out
}
