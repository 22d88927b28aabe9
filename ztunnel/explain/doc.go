// Package explain says what this node's proxies would do with a connection, for
// people: which ways it can go and why, and what every policy says of it at the
// destination. It evaluates the very code of the data plane (nexthop, authz) on a
// snapshot of the mesh and puts the outcome into the JSON of the admin pages
// /explain/outbound and /explain/inbound; meshctl joins the halves of two nodes.
//
//	out := explain.Outbound(store.Snapshot(), explain.OutboundQuery{
//		Client: explain.Name{Namespace: "shop", Name: "client"}, Service: key, Port: 80,
//	}, network)
//
// It has no state and does no I/O; nothing of it runs for a connection.
package explain
