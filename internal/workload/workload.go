package workload

import (
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Defaults for fields that the wire leaves empty.
const (
	DefaultTrustDomain    = "cluster.local"
	DefaultServiceAccount = "default"
	DefaultClusterID      = "Kubernetes"
	// DefaultTunnelPort is where HBONE is served unless a gateway says otherwise.
	DefaultTunnelPort = 15008
)

// Protocol is how a workload is reached.
type Protocol uint8

// The protocols of workload.proto. The zero value is plain TCP.
const (
	None Protocol = iota
	HBONE
	// LegacyIstioMTLS marks sidecar workloads. Nobody speaks it from a node
	// proxy: they are reached by plain TCP.
	LegacyIstioMTLS
)

// String returns the name that config dumps use.
func (p Protocol) String() string {
	switch p {
	case HBONE:
		return "HBONE"
	case LegacyIstioMTLS:
		return "LegacyIstioMtls"
	default:
		return "TCP"
	}
}

// Type is the kind of controller that owns a workload.
type Type uint8

// The workload types of workload.proto.
const (
	Deployment Type = iota
	CronJob
	Pod
	Job
)

// String returns the lower-case name used in baggage and config dumps.
func (t Type) String() string {
	switch t {
	case CronJob:
		return "cronjob"
	case Pod:
		return "pod"
	case Job:
		return "job"
	default:
		return "deployment"
	}
}

// Locality says where a workload runs. Empty parts are unknown.
type Locality struct {
	Region, Zone, Subzone string
}

// Port maps a port of a service to a port of its workloads.
type Port struct {
	// Service is the port that clients address.
	Service uint16
	// Target is the workload's port; 0 is a named port that each workload
	// resolves for itself.
	Target uint16
	App    AppProtocol
}

// AppProtocol is what the port's owner declared it to speak.
type AppProtocol uint8

// The application protocols of workload.proto.
const (
	AppUnknown AppProtocol = iota
	AppHTTP11
	AppHTTP2
	AppGRPC
	AppTCP
	AppTLS
)

// ServiceKey names a service: its namespace and hostname.
type ServiceKey struct {
	Namespace, Hostname string
}

// String returns "namespace/hostname", the resource name on the wire.
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Hostname }

// IsZero reports whether the key names nothing.
func (k ServiceKey) IsZero() bool { return k == ServiceKey{} }

// GatewayAddress is where a waypoint or a network gateway is found: either
// Hostname or Addr is set.
type GatewayAddress struct {
	Hostname ServiceKey
	Network  string
	Addr     netip.Addr
	// Port is the gateway's HBONE port, 15008 when the wire left it empty.
	Port uint16
}

// String names the gateway for operators.
func (g *GatewayAddress) String() string {
	if g == nil {
		return "none"
	}
	if !g.Hostname.IsZero() {
		return g.Hostname.String()
	}
	return g.Network + "/" + g.Addr.String()
}

// ApplicationTunnel tells how the application itself wants connections
// delivered.
type ApplicationTunnel struct {
	// Proxy is true for PROXY protocol v2, false for none.
	Proxy bool
	// Port is the application's tunnel port; 0 keeps the original one.
	Port uint16
}

// Workload is one running instance: a pod, a machine or an external endpoint.
// It is immutable: nobody may change a field, slice or map of it.
type Workload struct {
	// UID names the workload in the mesh: cluster/group/kind/namespace/name[/section].
	UID            string
	Name           string
	Namespace      string
	ServiceAccount string
	TrustDomain    string
	// Hostname is resolved by the proxy when there is no address.
	Hostname          string
	Network           string
	Node              string
	ClusterID         string
	CanonicalName     string
	CanonicalRevision string
	WorkloadName      string
	Type              Type
	// Addresses holds IPv4 addresses as such, never mapped into IPv6.
	Addresses    []netip.Addr
	Protocol     Protocol
	NativeTunnel bool
	// Services maps each service that the workload serves to its ports there.
	Services map[ServiceKey][]Port
	// AuthorizationPolicies lists "namespace/name" of selector-scoped policies.
	AuthorizationPolicies []string
	Healthy               bool
	// HostNetwork workloads share the node's address and are not found by it.
	HostNetwork bool
	Locality    Locality
	// Capacity is the weight in load balancing; 0 receives nothing.
	Capacity          uint32
	Waypoint          *GatewayAddress
	NetworkGateway    *GatewayAddress
	ApplicationTunnel *ApplicationTunnel

	identity spiffeid.ID
}

// Identity returns spiffe://<trust domain>/ns/<namespace>/sa/<account>. It is
// zero only for a Workload that FromProto did not make and whose fields do not
// form a valid SPIFFE ID.
func (w *Workload) Identity() spiffeid.ID {
	if !w.identity.IsZero() {
		return w.identity
	}
	id, err := NewIdentity(w.TrustDomain, w.Namespace, w.ServiceAccount)
	if err != nil {
		return spiffeid.ID{}
	}
	return id
}

// IsPod reports whether the uid names a Kubernetes pod.
func (w *Workload) IsPod() bool {
	_, rest, ok := strings.Cut(w.UID, "/")
	if !ok {
		return false
	}
	group, rest, ok := strings.Cut(rest, "/")
	return ok && group == "" && strings.HasPrefix(rest, "Pod/")
}

// Address returns the workload's first address of the family that like has, or
// else its first address. It is the zero Addr when the workload has none.
func (w *Workload) Address(like netip.Addr) netip.Addr {
	for _, a := range w.Addresses {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	if len(w.Addresses) > 0 {
		return w.Addresses[0]
	}
	return netip.Addr{}
}

// PodUID returns the uid that the control plane gives a pod. An empty cluster
// is DefaultClusterID.
func PodUID(cluster, namespace, name string) string {
	if cluster == "" {
		cluster = DefaultClusterID
	}
	return cluster + "//Pod/" + namespace + "/" + name
}

// Preferred reports whether a is found before b on an address that both claim:
// a pod in the mesh, then a pod, then another mesh member, then any. Equals are
// ordered by uid, so that every node settles the conflict alike.
func Preferred(a, b *Workload) bool {
	ra, rb := rank(a), rank(b)
	if ra != rb {
		return ra > rb
	}
	return a.UID < b.UID
}

func rank(w *Workload) int {
	r := 0
	if w.IsPod() {
		r += 2
	}
	if w.Protocol == HBONE {
		r++
	}
	return r
}

// NewIdentity forms spiffe://<trustDomain>/ns/<namespace>/sa/<account>, with
// cluster.local and default for an empty trust domain and account. The error
// says which part is not valid in a SPIFFE ID.
func NewIdentity(trustDomain, namespace, account string) (spiffeid.ID, error) {
	if trustDomain == "" {
		trustDomain = DefaultTrustDomain
	}
	if account == "" {
		account = DefaultServiceAccount
	}
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return spiffeid.ID{}, fieldError("trust_domain", "%q: %v", clip(trustDomain), err)
	}
	if err := spiffeid.ValidatePathSegment(namespace); err != nil {
		return spiffeid.ID{}, fieldError("namespace", "%q: %v", clip(namespace), err)
	}
	if err := spiffeid.ValidatePathSegment(account); err != nil {
		return spiffeid.ID{}, fieldError("service_account", "%q: %v", clip(account), err)
	}
	return spiffeid.FromSegments(td, "ns", namespace, "sa", account)
}
