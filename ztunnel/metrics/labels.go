package metrics

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Reporter says on whose side a connection is counted.
type Reporter uint8

// The reporters: outbound connections are counted by their source, inbound ones
// by their destination.
const (
	Source Reporter = iota
	Destination
)

// String returns the label's value.
func (r Reporter) String() string {
	if r == Destination {
		return "destination"
	}
	return "source"
}

// Flag is the outcome of a connection: the response_flags label.
type Flag string

// The outcomes.
const (
	FlagNone          Flag = "-"
	FlagDeny          Flag = "DENY"
	FlagConnect       Flag = "CONNECT"
	FlagTLSFailure    Flag = "TLS_FAILURE"
	FlagH2Handshake   Flag = "H2_HANDSHAKE_FAILURE"
	FlagNetworkPolicy Flag = "NETWORK_POLICY"
	FlagIdentity      Flag = "IDENTITY_ERROR"
	FlagRevoked       Flag = "CERT_REVOKED"
)

// flags lists all outcomes; any other value counts as FlagConnect, so that the
// label stays within these.
var flags = [...]Flag{
	FlagNone, FlagDeny, FlagConnect, FlagTLSFailure, FlagH2Handshake,
	FlagNetworkPolicy, FlagIdentity, FlagRevoked,
}

func (f Flag) index() int {
	for i := range flags {
		if flags[i] == f {
			return i
		}
	}
	return 2 // FlagConnect
}

// Peers are the two ends of a connection. Whatever is nil or zero is unknown.
type Peers struct {
	Reporter            Reporter
	Source, Destination *workload.Workload
	// The identities are set only when mutual TLS proved them.
	SourceIdentity, DestinationIdentity spiffeid.ID
	// Service is what the client addressed.
	Service *workload.Service
	// MutualTLS says that the connection went through a tunnel.
	MutualTLS bool
}

// labelNames are the labels of all istio_tcp_* families, in Istio's order.
var labelNames = []string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision",
	"source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision",
	"destination_workload_namespace", "destination_principal", "destination_app", "destination_version",
	"destination_cluster",
	"request_protocol", "response_flags", "connection_security_policy",
	"source_region", "source_zone", "destination_region", "destination_zone",
}

// flagLabel is the place of response_flags in labelNames.
const flagLabel = 21

const unknown = "unknown"

// peer is what the labels say of one end.
type peer struct {
	workload, canonical, revision, namespace, cluster, region, zone string
	principal                                                       spiffeid.ID
}

func newPeer(w *workload.Workload, id spiffeid.ID) peer {
	if w == nil {
		return peer{principal: id}
	}
	return peer{
		workload: w.WorkloadName, canonical: w.CanonicalName, revision: w.CanonicalRevision,
		namespace: w.Namespace, cluster: w.ClusterID,
		region: w.Locality.Region, zone: w.Locality.Zone, principal: id,
	}
}

// key identifies a series: pods of one deployment share theirs.
type key struct {
	reporter                                      Reporter
	mutualTLS                                     bool
	source, destination                           peer
	service, serviceNamespace, serviceDisplayName string
}

func newKey(p Peers) key {
	k := key{
		reporter: p.Reporter, mutualTLS: p.MutualTLS,
		source:      newPeer(p.Source, p.SourceIdentity),
		destination: newPeer(p.Destination, p.DestinationIdentity),
	}
	if s := p.Service; s != nil {
		k.service, k.serviceNamespace, k.serviceDisplayName = s.Hostname, s.Namespace, s.Name
	}
	return k
}

// labels returns the values of labelNames, with response_flags as for a good end.
func (k key) labels() []string {
	policy := unknown
	if k.mutualTLS {
		policy = "mutual_tls"
	}
	s, d := k.source, k.destination
	out := []string{
		k.reporter.String(),
		s.workload, s.canonical, s.revision, s.namespace, s.principalLabel(), s.canonical, s.revision, s.cluster,
		k.service, k.serviceNamespace, k.serviceDisplayName,
		d.workload, d.canonical, d.revision, d.namespace, d.principalLabel(), d.canonical, d.revision, d.cluster,
		"tcp", string(FlagNone), policy,
		s.region, s.zone, d.region, d.zone,
	}
	for i, v := range out {
		if v == "" {
			out[i] = unknown
		}
	}
	return out
}

func (p peer) principalLabel() string {
	if p.principal.IsZero() {
		return ""
	}
	return p.principal.String()
}
