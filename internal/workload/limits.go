package workload

// Limits of one resource. A control plane that exceeds them is broken or
// hostile; the resource is refused and the last good one stays in force.
const (
	// maxUIDBytes bounds a workload's uid: six parts, each at most a DNS
	// subdomain (253 bytes, RFC 1123), and separators.
	maxUIDBytes = 2048
	// maxNameBytes bounds names, namespaces, hostnames and the like: a DNS name
	// has at most 253 bytes (RFC 1123 section 2.1); labels of canonical names and
	// localities are shorter still. Cloud locality strings get the same room.
	maxNameBytes = 253
	// maxAddresses bounds addresses of one workload: a dual-stack pod has two, a
	// multi-homed machine a handful.
	maxAddresses = 64
	// maxVIPs bounds virtual addresses of one service. A ServiceEntry may list
	// many CIDRs.
	maxVIPs = 4096
	// maxPorts bounds ports of one service; Kubernetes objects of 1.5 MiB cannot
	// hold many more.
	maxPorts = 4096
	// maxServices bounds the services that one workload may belong to.
	maxServices = 4096
	// maxPolicies bounds the selector policies of one workload.
	maxPolicies = 4096
	// maxSANs bounds extra accepted identities of one service.
	maxSANs = 4096
	// maxSPIFFEBytes bounds a SPIFFE ID (SPIFFE-ID standard, section 2.3).
	maxSPIFFEBytes = 2048
	// maxScopes bounds the routing preference: there are six scopes.
	maxScopes = 16
	// maxWeightedWaypoints bounds canary waypoints of one service.
	maxWeightedWaypoints = 64
)
