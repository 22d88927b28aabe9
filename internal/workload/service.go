package workload

import (
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// NetworkAddress is a virtual address or a range of them in one network.
type NetworkAddress struct {
	Network string
	// Prefix is masked; a single address has the full length.
	Prefix netip.Prefix
}

// Service is a named, load-balanced set of workloads. It is immutable: nobody
// may change a field or slice of it.
type Service struct {
	Name      string
	Namespace string
	Hostname  string
	VIPs      []NetworkAddress
	Ports     []Port
	// SubjectAltNames are accepted besides the chosen workload's own identity.
	SubjectAltNames []spiffeid.ID
	Waypoint        *GatewayAddress
	// WeightedWaypoints are canary waypoints, with their weights.
	WeightedWaypoints []WeightedWaypoint
	LoadBalancing     LoadBalancing
	IPFamilies        IPFamilies
	// Canonical marks the owner when several services share a hostname or VIP.
	Canonical          bool
	IngressUseWaypoint bool
	// NamespaceOnly services exist only for clients of their own namespace.
	NamespaceOnly bool
}

// Key returns the service's name in the mesh.
func (s *Service) Key() ServiceKey { return ServiceKey{s.Namespace, s.Hostname} }

// Port returns the mapping of the port that clients address.
func (s *Service) Port(port uint16) (Port, bool) {
	for _, p := range s.Ports {
		if p.Service == port {
			return p, true
		}
	}
	return Port{}, false
}

// WeightedWaypoint is a waypoint and its share of new connections.
type WeightedWaypoint struct {
	GatewayAddress
	Weight uint32
}

// IPFamilies says which address families a service is reached by.
type IPFamilies uint8

// The families of workload.proto.
const (
	FamilyAutomatic IPFamilies = iota
	FamilyIPv4
	FamilyIPv6
	FamilyDual
)

// String returns the name that config dumps use, empty for automatic.
func (f IPFamilies) String() string {
	switch f {
	case FamilyIPv4:
		return "IPv4"
	case FamilyIPv6:
		return "IPv6"
	case FamilyDual:
		return "Dual"
	default:
		return ""
	}
}

// LoadBalancing says how an endpoint is chosen. The zero value is: any healthy
// endpoint.
type LoadBalancing struct {
	// Preference lists scopes, the most important first.
	Preference []Scope
	Mode       Mode
	// AllowUnhealthy also considers endpoints that are not ready.
	AllowUnhealthy bool
}

// Scope is one property that an endpoint may share with the client.
type Scope uint8

// The scopes of workload.proto.
const (
	ScopeRegion Scope = iota + 1
	ScopeZone
	ScopeSubzone
	ScopeNode
	ScopeCluster
	ScopeNetwork
)

// String returns the name that config dumps use.
func (s Scope) String() string {
	switch s {
	case ScopeRegion:
		return "Region"
	case ScopeZone:
		return "Zone"
	case ScopeSubzone:
		return "Subzone"
	case ScopeNode:
		return "Node"
	case ScopeCluster:
		return "Cluster"
	case ScopeNetwork:
		return "Network"
	default:
		return "Unspecified"
	}
}

// Mode says what the preference means.
type Mode uint8

// The modes of workload.proto.
const (
	// ModeStandard balances over all endpoints, whatever the preference.
	ModeStandard Mode = iota
	// ModeStrict uses only endpoints that share every scope.
	ModeStrict
	// ModeFailover uses the endpoints that share most of the leading scopes.
	ModeFailover
	// ModePassthrough keeps the address that the client dialled.
	ModePassthrough
)

// String returns the name that config dumps use.
func (m Mode) String() string {
	switch m {
	case ModeStrict:
		return "Strict"
	case ModeFailover:
		return "Failover"
	case ModePassthrough:
		return "Passthrough"
	default:
		return "Standard"
	}
}
