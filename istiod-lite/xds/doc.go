// Package xds serves the mesh to its proxies: the delta variant of the
// aggregated discovery service (envoy.service.discovery.v3), for the resource
// types of package snapshot. It owns subscriptions, acknowledgements and what
// each client still lacks.
//
// Each stream is served by one goroutine that owns its state, beside one that
// receives and one that sends. A client has at most one response per type under
// way; whatever changes meanwhile is merged into a set of names, so that a slow
// client costs at most one name per resource and receives, when it comes round,
// only the newest state. It never holds back Publish or another client, and one
// that takes longer than Config.SendTimeout to take a response is cut off.
//
// A client that subscribes to everything gets everything, then differences. One
// that asks on demand (it subscribes to "*" and unsubscribes from it at once)
// gets what its keys name: a resource by its name or by an alias, and with a
// service the workloads behind it. A key that names nothing is answered as
// removed, so that the asker need not wait.
//
// What waypoints do belongs to each of them: it is subscribed by the waypoint's
// alias, which only the account that Config.Scope gives it to may ask for, and what
// goes over to another waypoint is removed from the one that had it.
//
//	server, err := xds.New(xds.Config{Authorize: authorize, Logger: logger})
//	server.Register(grpcServer)
//	server.Publish(snapshot, change, time.Now())
package xds
