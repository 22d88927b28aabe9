// Package upstream decides where requests go, and keeps the connections on which
// they get there.
//
// A Backend is one port of a service: its endpoints, the way requests are shared
// among them, who of them is left out for now (passive and active health), how much
// may be under way (circuit limits, adaptive concurrency), what retries may cost (a
// budget), and the pools of connections. It owns no protocol: connections are
// message.Clients that a Dialer makes, and what an application answered is told to
// it as an Outcome. It does not own routes, nor the life of a request: that is
// waypoint/forward.
//
// Choosing reads one immutable set of targets behind an atomic pointer and takes no
// lock. What changes with time (the end of an ejection, of a slow start, of an
// interval of statistics) is noticed by the next request that comes after it, so an
// idle Backend runs nothing; only active health checks have goroutines, and idle
// connections one timer per pool.
//
//	backend, err := upstream.New(upstream.Config{Name: "shop/web.shop.svc:80", Balancer: upstream.LeastRequest}, dialer)
//	backend.Update(endpoints)
//
//	x, err := backend.Send(ctx, upstream.HTTP1, upstream.Options{Avoid: tried}, request, true)
//	response, err := x.Response(ctx)
//	x.Report(upstream.Outcome{Status: response.Status})
//	...
//	err = x.Close()
package upstream
