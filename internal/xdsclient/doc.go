// Package xdsclient keeps a proxy's view of the mesh up to date: one delta ADS
// stream to the control plane (envoy.service.discovery.v3), reopened with
// back-off, on which every configured resource type is subscribed to, as
// a whole or by names. It owns the stream, the acknowledgements and the versions last
// accepted; it does not own the state, which lives with the Handlers.
//
// A Client is made by New and driven by Run, which returns when its context
// ends. When the stream is lost, the state held by the Handlers stays in force
// and the next stream names the versions already known, so that the server
// sends only what differs:
//
//	client, err := xdsclient.New(xdsclient.Config{
//		Dial:     xdsclient.Dialer(dialConfig),
//		Node:     node,
//		Handlers: map[string]xdsclient.Handler{xdsclient.AddressType: addresses},
//		Logger:   logger,
//	})
//	go client.Run(ctx)
//	<-client.Synced() // every type has had its first answer
//
// What one batch of resources gets wrong is refused resource by resource: the
// rest of the batch stands, the refused ones are named in the NACK and their
// versions are not recorded, so that the server offers them again after a
// reconnect.
package xdsclient
