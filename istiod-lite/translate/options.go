package translate

import "cmp"

// Options are the settings of a mesh. The zero value is a mesh with Istio's
// defaults.
type Options struct {
	// TrustDomain of the mesh's identities; empty means cluster.local.
	TrustDomain string
	// ClusterID names the cluster that the objects come from; empty means
	// Kubernetes.
	ClusterID string
	// Network is the network of addresses that do not say otherwise; empty is
	// the default network.
	Network string
	// RootNamespace holds mesh-wide policies; empty means istio-system.
	RootNamespace string
	// DomainSuffix ends the names of services; empty means cluster.local.
	DomainSuffix string
	// Kubernetes says that the objects come from a cluster whose controllers run,
	// where files are the whole truth. In a cluster a pod is in the mesh when its
	// node's agent has marked it, and a Service has the pods that its selector
	// takes besides what EndpointSlices say. In files labels decide, and a
	// Service that any EndpointSlice describes has no other endpoints.
	Kubernetes bool
}

// DefaultTrustDomain is what an empty trust domain stands for, in objects and on
// the wire.
const DefaultTrustDomain = "cluster.local"

func (o Options) withDefaults() Options {
	o.TrustDomain = cmp.Or(o.TrustDomain, DefaultTrustDomain)
	o.ClusterID = cmp.Or(o.ClusterID, "Kubernetes")
	o.RootNamespace = cmp.Or(o.RootNamespace, "istio-system")
	o.DomainSuffix = cmp.Or(o.DomainSuffix, "cluster.local")
	return o
}

// trustDomain is the value on the wire, where empty stands for the default.
func (o Options) trustDomain() string {
	if o.TrustDomain == DefaultTrustDomain {
		return ""
	}
	return o.TrustDomain
}
