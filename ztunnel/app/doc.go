// Package app puts ztunnel together: it starts the control plane's client, the
// certificates, the mesh's state and the node agent's client, gives every pod
// its proxies, serves admin, metrics and readiness, and ends all of it in order.
//
// Nothing passes before the control plane's first full answer: pods are taken
// from the node agent only then, and until a pod is taken nobody listens on its
// ports, so the redirection refuses its connections. What is pending shows at
// the readiness port by name.
//
// The end (SIGTERM or /quitquitquit) is a drain: listeners close, tunnels tell
// their peers to open no more streams, connections may finish until the drain
// deadline, then they are cut and counted in the log.
//
//	err := app.Run(ctx, cfg)
package app
