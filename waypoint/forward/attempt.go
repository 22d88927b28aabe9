package forward

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// forward sends the request to its backend and the response back. It takes the permit
// as a value, so that only an authorized request can get here.
func (e *exchange) forward(ctx context.Context, permit request.Permit) {
	if !permit.Valid() {
		panic("forward: without a permit")
	}
	if !e.find(ctx) {
		return
	}
	timeout := e.timeout()
	ctx, e.limit = within(ctx, timeout, errRequestTimeout, switches(e.r), false)
	defer e.limit.end()
	if timeout > 0 {
		e.until = time.Now().Add(timeout)
	}
	// A client that is slow to send its content takes no place at the backend meanwhile.
	if !e.takeContent(ctx) {
		return
	}
	place, err := e.to.Request(e.to.Priority(e.r, &e.c.Peer))
	if err != nil {
		e.replyTo(ctx, err)
		return
	}
	defer place.Release()
	if e.d.Rule != nil {
		e.mirror(e.d.Rule)
	}
	e.outgoing(e.b, e.r)
	e.attempts(ctx, e.r)
}

// outgoing makes of the client's request what the application gets.
func (e *exchange) outgoing(b *route.Backend, r *message.Request) {
	if e.d.Rule != nil {
		e.d.Apply(b, r)
	}
	// Who the client is says the tunnel, and nobody else.
	r.Header.Set("x-forwarded-client-cert", e.c.cert(e.f.cfg.Identity))
	if !r.Header.Has("x-request-id") {
		if e.id == "" {
			e.id = newRequestID()
		}
		r.Header.Add("x-request-id", e.id)
	}
	forwardedProto(&r.Header)
}

// attempts sends the request until an attempt stands.
func (e *exchange) attempts(ctx context.Context, r *message.Request) {
	policy, up, protocol := e.retryPolicy(), e.to.Backend, e.to.Speak(r)
	if e.to.Secure {
		r.Scheme = "https" // as servers that speak TLS know it
	}
	if isGRPC(r.Header) {
		protocol = upstream.HTTP2
	}
	o := upstream.Options{Session: e.session.Target, Farther: policy.OtherLocalities}
	o.Hash, o.Hashed, e.hashCookie = up.Key(r, e.c.Source.Addr())
	tried := e.tried[:0]
	free := 0
	for number := 1; ; number++ {
		a := &e.first
		if number > 1 {
			a = new(attempt)
		}
		a.e, a.number = e, number
		if e.rec.Span != nil {
			e.rec.Span.Begin(&r.Header, time.Now())
		}
		if !policy.SameEndpoint {
			o.Avoid = tried
		}
		e.tellDeadline(r, policy)
		decision := a.run(ctx, up, protocol, o, r, policy, free)
		e.rec.Attempts = number
		if target := a.x.Target(); target != nil {
			e.rec.Target = target
			tried = append(tried, target)
		}
		// Who could not be connected to has no work with it, and needs no protection.
		if decision.Retry && !decision.Free && a.failure != upstream.ConnectFailed {
			retry, err := up.Retry()
			if err != nil {
				e.f.log.Debug("no retry", zap.String("backend", up.Name()), zap.Error(err))
				decision.Retry = false
			}
			defer retry.Release()
		}
		if !decision.Retry {
			a.finish(ctx)
			a.trace()
			a.close()
			return
		}
		a.trace()
		a.close()
		if decision.Free {
			free++
		}
		if !sleep(ctx, decision.After) {
			e.replyTo(ctx, context.Cause(ctx))
			return
		}
	}
}

// defaultRetry is for requests whose rule says nothing; nobody changes it.
var defaultRetry = upstream.DefaultRetry()

// retryPolicy is the rule's, else the destination's, else the default.
func (e *exchange) retryPolicy() *upstream.RetryPolicy {
	if rule := e.d.Rule; rule != nil && rule.Retry != nil {
		return rule.Retry
	}
	if own := e.to.Retry(); own != nil {
		return own
	}
	return defaultRetry
}

// perTry is the time of one attempt, 0 without end.
func (e *exchange) perTry(policy *upstream.RetryPolicy) time.Duration {
	limit := policy.PerTry
	if rule := e.d.Rule; rule != nil && rule.BackendTimeout > 0 && (limit == 0 || rule.BackendTimeout < limit) {
		limit = rule.BackendTimeout
	}
	return limit
}

// attempt is one try to have the request answered.
type attempt struct {
	e      *exchange
	number int

	x        upstream.Exchange
	limit    limit
	upload   sync.WaitGroup
	uploaded atomic.Bool
	// response is the final head, nil when err says why there is none.
	response *message.Response
	err      error
	failure  upstream.Failure
}

// run sends the request, waits for the head of the response, and decides whether there
// is another attempt.
func (a *attempt) run(ctx context.Context, up *upstream.Backend, protocol upstream.Protocol, o upstream.Options, r *message.Request, policy *upstream.RetryPolicy, free int) upstream.Decision {
	whole := ctx
	ctx, a.limit = within(ctx, a.e.perTry(policy), errAttemptTimeout, a.e.body.kind == switching, a.e.body.kind == streamed)
	sent := false
	a.x, a.err = up.Send(ctx, protocol, o, r, a.e.body.kind == noContent)
	if a.err == nil {
		sent = true
		a.response, a.err = a.exchangeHeads(ctx)
	}
	if a.e.body.failure() != nil {
		return upstream.Decision{} // the client's content is at fault
	}
	outcome := upstream.Attempt{Number: a.number, Free: free, GRPC: -1, Replayable: a.e.body.replayable(), Reused: a.x.Reused()}
	if deadline, ok := whole.Deadline(); ok {
		outcome.Left = time.Until(deadline)
	}
	report := upstream.Outcome{GRPC: -1}
	if a.err != nil {
		if cause := a.limit.cause(); cause != nil {
			defer func() { a.err = cause }()
		}
		outcome.Failure = upstream.FailureOf(ctx, a.err)
		report.Failure, a.failure = outcome.Failure, outcome.Failure
		if outcome.Failure == upstream.NoFailure {
			return upstream.Decision{}
		}
	} else {
		outcome.Status, outcome.Header = a.response.Status, a.response.Header
		report.Status = a.response.Status
		if v := a.response.Header.Get("grpc-status"); v != "" {
			if n, err := strconv.Atoi(v); err == nil {
				outcome.GRPC, report.GRPC = n, n
			}
		}
	}
	if sent {
		a.x.Report(report)
	}
	return policy.Decide(r, outcome)
}

// exchangeHeads sends the content and returns the final head.
func (a *attempt) exchangeHeads(ctx context.Context) (*message.Response, error) {
	sent := a.e.body.send(a)
	for {
		r, err := a.x.Response(ctx)
		if err != nil {
			// A server that answers early may take no more of the content: what it did
			// not answer either is lost because of that.
			if sent != nil {
				err = sent
			}
			return nil, err
		}
		if !r.Interim() {
			return r, nil
		}
		if r.Status != 100 { // which the client's own codec has sent
			if err := a.e.x.Inform(r); err != nil {
				return nil, err
			}
		}
	}
}

// finish passes the response, or says why there is none.
func (a *attempt) finish(ctx context.Context) {
	e := a.e
	if a.err != nil {
		if failed := e.body.failure(); failed != nil {
			e.refuseContent(failed)
			return
		}
		e.replyTo(ctx, a.err)
		return
	}
	r := a.response
	e.body.settle()
	e.rec.Status = r.Status
	if a.switches() {
		e.rec.Response, e.rec.Head = r, time.Since(e.rec.Start)
		a.join(ctx)
		return
	}
	if e.d.Rule != nil {
		e.d.ApplyResponse(e.b, r)
	}
	if e.hashCookie != "" {
		r.Header.Add("set-cookie", e.hashCookie)
	}
	if e.affinity != nil {
		path, _ := e.d.Prefix()
		e.affinity.Write(r, a.x.Target(), e.session, path, e.rec.Start)
	}
	e.leave(r)
	empty := e.r.Method == "HEAD" || r.Status == 204 || r.Status == 304 || r.Length == 0
	if err := e.x.Respond(r, empty); err != nil {
		if e.r.Protocol != "" && r.Status/100 == 2 {
			// Over HTTP/2 this would accept the change of protocol that was declined.
			e.reply(reply{status: 502, flag: flagUpstreamProtocol, text: "the upstream did not change the protocol"})
			return
		}
		e.rec.fail(flagDownstream, err)
		return
	}
	var trailer message.Header
	if !empty {
		sent, err := pump(e.x, a.x.Body(), &e.messages)
		e.rec.Sent = sent
		if err != nil {
			flag, failure := flagDownstream, upstream.NoFailure
			var broken readError
			if errors.As(err, &broken) {
				switch cause := a.limit.cause(); {
				case cause == nil:
					flag, failure = flagUpstreamReset, upstream.Reset
				case errors.Is(cause, errRequestTimeout), errors.Is(cause, errAttemptTimeout):
					flag, failure, err = flagTimeout, upstream.TimedOut, cause
				default: // the client is gone, which is not held against the endpoint
					err = cause
				}
			}
			if failure != upstream.NoFailure {
				a.x.Report(upstream.Outcome{Status: r.Status, GRPC: -1, Failure: failure})
			}
			e.rec.fail(flag, err)
			e.x.Abort(err)
			return
		}
		trailer = a.x.Body().Trailer()
		e.rec.Trailer = trailer
	}
	if v := trailer.Get("grpc-status"); v != "" {
		e.rec.GRPC, _ = strconv.Atoi(v)
		a.x.Report(upstream.Outcome{Status: r.Status, GRPC: e.rec.GRPC})
	} else if v := r.Header.Get("grpc-status"); v != "" {
		e.rec.GRPC, _ = strconv.Atoi(v)
	}
	e.rec.fail(flagDownstream, e.x.Close(trailer))
}

// trace tells of the attempt.
func (a *attempt) trace() {
	if a.e.rec.Span == nil {
		return
	}
	o := trace.Outcome{GRPC: -1, Target: a.x.Target(), Err: a.err}
	if a.response != nil {
		o.Status, o.GRPC = a.response.Status, a.e.rec.GRPC
	}
	a.e.rec.Span.End(time.Now(), o)
}

// switches reports whether bytes follow instead of messages.
func (a *attempt) switches() bool {
	return a.response.Status == 101 || a.e.r.Method == "CONNECT" && a.response.Status/100 == 2
}

// join carries bytes both ways after a change of protocol.
func (a *attempt) join(ctx context.Context) {
	e := a.e
	server, err := a.x.Stream()
	if err == nil {
		var client message.Stream
		if client, err = e.x.Switch(a.response); err == nil {
			// Answered in time; how long the conversation is then is nobody's concern.
			a.limit.lift()
			e.limit.lift()
			e.body.received, e.rec.Sent, err = splice(ctx, client, server)
		}
	}
	e.rec.fail(flagUpstreamReset, err)
}

// close releases the attempt's connection, after the upload: the client's exchange has
// ended by now, so that nothing more comes of it.
func (a *attempt) close() {
	if a.e.body.kind == streamed && !a.uploaded.Load() {
		a.limit.end() // the application has answered without the rest
		a.x.Break()   // and may take nothing of it for ever
	}
	a.upload.Wait()
	_ = a.x.Close()
	a.limit.end()
}

// replyTo answers what kept the request from its backend. ctx is the request's.
func (e *exchange) replyTo(ctx context.Context, err error) {
	e.rec.Err = err
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errRequestTimeout) {
		// The client is gone.
		e.rec.fail(flagDownstream, cause)
		e.x.Abort(cause)
		return
	}
	var overflow *upstream.OverflowError
	var connect *upstream.ConnectError
	var secure *upstream.SecureError
	var bad *message.ProtocolError
	switch {
	case errors.Is(err, upstream.ErrNoEndpoints):
		e.reply(reply{status: 503, flag: flagNoHealthy, text: "no healthy upstream"})
	case errors.As(err, &overflow), errors.Is(err, upstream.ErrBudget):
		e.reply(reply{status: 503, flag: flagOverflow, text: "upstream is overloaded"})
	case errors.Is(err, errRequestTimeout), errors.Is(err, errAttemptTimeout):
		e.reply(reply{status: 504, flag: flagTimeout, text: "upstream request timeout", grpc: grpcDeadlineExceeded})
	case errors.As(err, &secure):
		e.reply(reply{status: 503, flag: flagUpstreamConnect, text: "no TLS connection to the upstream"})
	case errors.As(err, &connect), message.Unsent(err):
		e.reply(reply{status: 503, flag: flagUpstreamConnect, text: "no connection to the upstream"})
	case errors.As(err, &bad):
		e.reply(reply{status: 502, flag: flagUpstreamProtocol, text: "the upstream's answer breaks the protocol"})
	default:
		e.reply(reply{status: 503, flag: flagUpstreamReset, text: "the upstream broke the connection before it answered"})
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
