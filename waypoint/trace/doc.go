// Package trace follows requests across the mesh: it reads the context that a client
// sends along (W3C Trace Context, or B3 in one field or in several), decides whether a
// request is sampled, and hands the context on to the application.
//
// A request that is not sampled costs one look at its fields and no memory, and what
// the client sent goes on as it is. A Span belongs to the goroutine of its request; who
// reports the request turns it into what is exported.
//
//	t := trace.NewTracer()
//	t.Configure(&trace.Settings{Sampling: 100}) // 1 %
//	s := t.Start(request)                       // nil: not sampled
//	s.Begin(&request.Header, time.Now())        // before each attempt
//	s.End(time.Now(), trace.Outcome{Status: 200})
package trace
