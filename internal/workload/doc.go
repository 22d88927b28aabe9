// Package workload holds what the mesh knows about workloads and services, as
// immutable values parsed strictly from the wire form (api/workload).
//
// It owns the parse, its limits, identity defaults and the rule that settles
// two workloads on one address. It does not own storage or look-up
// (internal/state) nor any decision (ztunnel/nexthop, internal/authz).
//
// Values are made once by FromProto and shared between goroutines afterwards;
// nobody may change a field, slice or map of them.
//
//	wl, svc, err := workload.FromProto(address)
//	switch {
//	case err != nil: // names the resource and the field
//	case wl != nil:  // a workload
//	default:         // svc is a service
//	}
package workload
