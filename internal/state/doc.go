// Package state holds what one proxy knows of the mesh: workloads,
// services with their endpoints, and authorization policies.
//
// A Store takes updates from the control plane, through the handlers that
// xdsclient calls, and publishes immutable Snapshots. Readers load the current
// Snapshot without a lock and keep it as long as they like: it never changes.
// One update costs a path copy in a few persistent trees, whatever the size of
// the mesh.
//
// The package decides nothing: where a connection goes is ztunnel/nexthop,
// whether it may is internal/authz.
//
//	store := state.New(state.Config{ClusterID: "Kubernetes"})
//	handlers[xdsclient.AddressType] = store.AddressHandler()
//	snap := store.Snapshot()
//	w := snap.WorkloadByAddr("", ip)
//	permit, _, err := snap.Policies(w).Authorize(attributes)
package state
