package forward

import (
	"context"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// address finds the service that the client means.
func (e *exchange) address() bool {
	if e.svc = e.f.cfg.Mesh.Service(e.c.Service); e.svc == nil {
		e.reply(reply{status: 503, flag: flagNoRoute, text: "the service is not served here any more"})
		return false
	}
	e.rec.Service = e.svc.Name
	return true
}

// decide follows the routes of the service's port to a rule, or to the service itself.
func (e *exchange) decide() bool {
	port := e.svc.Port(e.c.Port)
	if port == nil {
		e.reply(reply{status: 503, flag: flagNoRoute, text: "the service has no such port"})
		return false
	}
	e.d = port.Match(e.c.Peer.Namespace(), e.r)
	if rule := e.d.Rule; rule != nil {
		e.rec.Route = rule.Name
	}
	if status, grpc, refused := e.d.Refusal(); refused {
		e.rec.Detail = e.d.Fault()
		text := "no route leads there"
		if e.rec.Detail != "" {
			text = "the route cannot be followed"
		}
		e.reply(reply{status: status, flag: flagNoRoute, text: text, grpc: grpc})
		return false
	}
	return true
}

// preflight answers what a browser asks before a script's request, and reports whether
// it did.
func (e *exchange) preflight() bool {
	if e.d.Rule == nil {
		return false
	}
	cors := e.d.Rule.Filters.CORS()
	if cors == nil {
		return false
	}
	e.origin = e.r.Header.Get("origin")
	r := cors.Preflight(e.r)
	if r != nil {
		e.respond(r)
	}
	return r != nil
}

// redirect sends the client elsewhere, or answers, where the rule says so, and reports
// whether it did.
func (e *exchange) redirect() bool {
	if e.d.Rule == nil {
		return false
	}
	to := e.d.Rule.Filters.Redirect()
	if to == nil {
		return e.direct()
	}
	r := to.Respond(e.d, e.r, e.c.Port)
	e.d.ApplyResponse(nil, r)
	e.respond(r)
	return true
}

// direct gives the answer that the rule itself has, and reports whether it did.
func (e *exchange) direct() bool {
	d := e.d.Rule.Filters.Direct()
	if d == nil {
		return false
	}
	r := &message.Response{Status: d.Status, Length: int64(len(d.Body))}
	if len(d.Body) > 0 {
		r.Header.Add("content-type", "text/plain")
	}
	e.d.ApplyResponse(nil, r)
	e.leave(r)
	e.rec.Status = r.Status
	empty := len(d.Body) == 0 || e.r.Method == "HEAD"
	err := e.x.Respond(r, empty)
	if err == nil && !empty {
		var n int
		n, err = e.x.Write(d.Body)
		e.rec.Sent = int64(n)
	}
	if err == nil {
		err = e.x.Close(nil)
	}
	e.rec.fail(flagDownstream, err)
	return true
}

// pick chooses one of the rule's backends: the one that holds the client's session, else
// by weight.
func (e *exchange) pick(ctx context.Context) bool {
	if e.d.Rule == nil {
		return true
	}
	e.b = e.d.Rule.Pick(e.f.backends.Next())
	e.bind(ctx)
	if status, grpc, refused := e.b.Refusal(); refused {
		if e.b != nil {
			e.rec.Detail = e.b.Fault
		}
		e.reply(reply{status: status, flag: flagNoRoute, text: "the route has no backend for this request", grpc: grpc})
		return false
	}
	return e.consult(ctx, e.b.Filters)
}

// bind finds what the rule binds the client to: the endpoint, and of several backends
// the one that has it.
func (e *exchange) bind(ctx context.Context) {
	if e.d.Rule == nil || e.d.Rule.Affinity == nil {
		return
	}
	e.affinity = e.d.Rule.Affinity
	if e.session = e.affinity.Read(e.r, e.rec.Start); e.session.Target == 0 {
		return
	}
	for i := range e.d.Rule.Backends {
		b := &e.d.Rule.Backends[i]
		key, ok := workload.ParseServiceKey(b.Service)
		if _, _, refused := b.Refusal(); refused || !ok || b.Weight == 0 || asks(b.Filters) {
			continue
		}
		if to, err := e.f.cfg.Mesh.Destination(ctx, key, b.Port, b.Subset); err == nil && to.Holds(e.session.Target) {
			e.b = b
			return
		}
	}
}

// find finds the destination: the backend that was picked, or the service itself.
func (e *exchange) find(ctx context.Context) bool {
	service, port, subset := e.c.Service, e.c.Port, ""
	if e.b != nil {
		key, ok := workload.ParseServiceKey(e.b.Service)
		if !ok {
			e.reply(reply{status: 500, flag: flagNoRoute, text: "the route has no backend for this request"})
			return false
		}
		service, port, subset = key, e.b.Port, e.b.Subset
	}
	to, err := e.f.cfg.Mesh.Destination(ctx, service, port, subset)
	if err != nil {
		e.rec.Err = err
		e.reply(reply{status: 503, flag: flagNoRoute, text: "the backend is not known"})
		return false
	}
	e.to, e.rec.Backend = to, to.Name()
	if fault := to.Fault(); fault != "" {
		e.rec.Detail = fault
		e.reply(reply{status: 503, flag: flagNoRoute, text: "nothing can be sent to the backend"})
		return false
	}
	if own := to.Affinity(); own != nil && e.affinity == nil {
		e.affinity = own
		e.session = own.Read(e.r, e.rec.Start)
	}
	return true
}
