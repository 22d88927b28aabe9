// Package admin is the operator's HTTP interface of a Tulle process: an index,
// a dump of the configuration in force, log levels, Go's profiles and a request
// to quit. It owns the server and its protection, not what the pages show: the
// component hands in functions.
//
// It is reachable from the machine itself only: New refuses an address that is
// not loopback, and every request whose Host is not a loopback name is refused,
// so that neither a web page nor a rebound DNS name can drive it (the worst
// finding of Envoy's 2018 audit was its open admin port). What changes
// something takes POST.
//
//	srv, err := admin.New(admin.Config{
//		Addr: "localhost:15000", Component: "ztunnel",
//		Dump: func() any { return snapshot.Dump() }, Levels: levels, Quit: stop,
//	})
//	go srv.Run(ctx)
//
// ServeHTTP-only servers that may listen elsewhere (metrics, readiness) use
// Serve, which brings the same limits without the loopback rule.
package admin
