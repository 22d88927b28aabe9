package workload

import "github.com/tulle-mesh/tulle/internal/baggage"

// Baggage returns what a tunnel request or its answer tells of the workload.
func (w *Workload) Baggage() baggage.Baggage {
	return baggage.Baggage{
		Cluster:        w.ClusterID,
		Namespace:      w.Namespace,
		WorkloadKind:   w.Type.String(),
		WorkloadName:   w.WorkloadName,
		ServiceName:    w.CanonicalName,
		ServiceVersion: w.CanonicalRevision,
		Region:         w.Locality.Region,
		Zone:           w.Locality.Zone,
	}
}
