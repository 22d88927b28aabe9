// Package leader chooses one of the control plane's replicas, by a Lease, for
// what only one may do: writing to the cluster.
//
//	e, err := leader.New(leader.Config{Client: client, Namespace: "istio-system", Name: "istiod-lite-leader", Identity: pod})
//	err = e.Run(ctx, func(ctx context.Context) {
//		// this replica leads until ctx ends
//	})
//
// A leader that cannot renew its Lease stops some seconds before another may
// take over. One that ends in order stops first and then gives the Lease up, so
// that the next need not wait for its end.
package leader
