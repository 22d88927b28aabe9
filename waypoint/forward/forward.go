package forward

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Client is who sends the requests of one connection.
type Client struct {
	Identity spiffeid.ID
	// Certificate is what proved it; nil without one. Nobody may change it.
	Certificate *x509.Certificate
	// Peer is Identity as policies judge it.
	Peer   request.Peer
	Source netip.AddrPort
	// Workload is what the client's node proxy calls it, for logs and metrics alone.
	Workload string
	// Destination is the address of the service that it dialled.
	Destination netip.AddrPort
	// Service and Port are what the client addressed.
	Service workload.ServiceKey
	Port    uint16
	// ServerName is what a client of TLS asks for, where routes want to know it.
	ServerName string

	// Version of HTTP that it speaks, 1 or 2; 0 for bytes.
	Version int
	// Memo is what a Report keeps of the connection. Who makes the Client may set it
	// before the first request, and nobody afterwards.
	Memo any

	// forwarded is what cert returned: the same for all requests of a connection.
	forwarded atomic.Pointer[string]
}

// Config makes a Forwarder.
type Config struct {
	Mesh *mesh.Mesh
	// Identity is the waypoint's own, for the applications.
	Identity spiffeid.ID
	// Report gets every request when it is over; nil nobody. It must not block.
	Report func(*Record)
	// Opened gets every connection that is carried as bytes when it begins; nil nobody.
	// It must not block.
	Opened func(*Record)
	// Tracer starts the spans of requests; nil none.
	Tracer *trace.Tracer
	Logger *zap.Logger
}

// Forwarder serves requests. It is safe for concurrent use.
type Forwarder struct {
	cfg Config
	log *zap.Logger
	// quiet is for what many requests may have to say at once.
	quiet *zap.Logger
	// backends and mirrors spread requests over their choices.
	backends, mirrors route.Spread
	shadows           shadows
	active            atomic.Int64
	peeks             peeks
	authorizers       extauthz.Stats
}

// Authorizers is how the questions to external authorizers ended.
func (f *Forwarder) Authorizers() []extauthz.Summary { return f.authorizers.Summaries() }

// Active is how many requests are under way.
func (f *Forwarder) Active() int64 { return f.active.Load() }

// New returns a Forwarder; Close ends it.
func New(cfg Config) *Forwarder {
	f := &Forwarder{cfg: cfg, log: cfg.Logger}
	f.backends.Start(randomUint64())
	f.mirrors.Start(randomUint64())
	f.quiet = quietly(cfg.Logger)
	f.shadows.init()
	return f
}

// Close ends what requests have left behind: copies of them that are under way.
func (f *Forwarder) Close() { f.shadows.close() }

type clientKey struct{}

// WithClient returns a context that tells Serve who the client is.
func WithClient(ctx context.Context, c *Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// Serve answers one request; it is a message.Handler. ctx comes from WithClient.
func (f *Forwarder) Serve(ctx context.Context, x message.Exchange) {
	c, ok := ctx.Value(clientKey{}).(*Client)
	if !ok {
		panic("forward: nobody said who the client is")
	}
	e := exchanges.Get().(*exchange)
	e.f, e.c, e.x, e.r = f, c, x, x.Request()
	e.rec.Start, e.rec.Client = time.Now(), c
	e.rec.describe(e.r)
	e.rec.Span = f.cfg.Tracer.Start(e.r)
	if isGRPC(e.r.Header) {
		e.rec.Call, e.body.messages.wanted, e.messages.wanted = true, true, true
	}
	f.active.Add(1)
	e.guarded(ctx)
	e.spent()
	f.active.Add(-1)
	e.body.release()
	e.rec.Received, e.rec.RequestMessages = e.body.total()
	e.rec.ResponseMessages = e.messages.seen
	e.rec.Duration = time.Since(e.rec.Start)
	if f.cfg.Report != nil {
		f.cfg.Report(&e.rec)
	}
	if !e.faulty {
		*e = exchange{}
		exchanges.Put(e)
	}
}

// exchanges are used again: they are a quarter of the memory that a request takes. What
// a request starts is over, or has nothing of its exchange, when Serve returns.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// exchange is one request under way.
type exchange struct {
	f   *Forwarder
	c   *Client
	x   message.Exchange
	r   *message.Request
	rec Record
	// svc is the service that was addressed.
	svc *mesh.Service
	// d is what the route decided, b the backend that was picked, nil for the service
	// itself.
	d route.Decision
	b *route.Backend
	// to is where its requests go.
	to *mesh.Destination
	// until is the end of its time, zero without one.
	until time.Time
	// hashCookie is the field that gives the client what its requests are spread by.
	hashCookie string
	// affinity and session are what binds the client to an endpoint, nil without.
	affinity *upstream.Affinity
	session  upstream.Session
	// body is the request's content.
	body content
	// messages are those of gRPC in the response.
	messages messages
	// limit is that of its time, set by forward.
	limit limit
	// answers of external authorizers that add to the response.
	answers []*extauthz.Answer
	// rations are what rate limits decided.
	rations rations
	// id is the x-request-id, where the client sent none.
	id string
	// origin is what a browser's script asked from, as the client sent it.
	origin string
	// first is the first attempt and tried the targets of some, so that most requests
	// need no memory for them.
	first attempt
	tried [2]*upstream.Target
	// faulty tells that it ended by a fault of ours: who knows what still uses it.
	faulty bool
}

// guarded keeps a fault of ours in one request from ending all others.
func (e *exchange) guarded(ctx context.Context) {
	defer func() {
		if fault := recover(); fault != nil {
			err := fmt.Errorf("internal fault: %v", fault)
			e.f.log.Error("request broken off", zap.Error(err), zap.Stack("stack"))
			e.rec.fail(flagDownstream, err)
			e.x.Abort(err)
			e.faulty = true
		}
	}()
	e.serve(ctx)
}

// serve takes the request through its stations. Each lets it go on, or has answered it.
func (e *exchange) serve(ctx context.Context) {
	if !e.address() {
		return
	}
	unmask(&e.r.Header)
	permit, ok := e.authorize(ctx)
	if !ok || !e.decide() || e.preflight() || !e.consultRule(ctx) || !e.ration(ctx) || e.redirect() || !e.pick(ctx) || !e.inject(ctx) {
		return
	}
	e.forward(ctx, permit)
}

// leave gives a response that is about to go to the client what the route and the
// waypoint add to it. It is the last to change the head, whoever has made it.
func (e *exchange) leave(r *message.Response) {
	if rule := e.d.Rule; rule != nil {
		if cors := rule.Filters.CORS(); cors != nil {
			cors.Apply(e.origin, r)
		}
	}
	for _, a := range e.answers {
		a.ApplyResponse(r)
	}
	e.rationed(r)
	e.rec.Response, e.rec.Head = r, time.Since(e.rec.Start)
}

// respond sends a response without content.
func (e *exchange) respond(r *message.Response) {
	e.rec.Status = r.Status
	err := e.x.Respond(r, true)
	if err == nil {
		err = e.x.Close(nil)
	}
	e.rec.fail(flagDownstream, err)
}

// reply sends an answer of the waypoint itself.
func (e *exchange) reply(r reply) {
	e.rec.Status, e.rec.Flag = r.status, r.flag
	if isGRPC(e.r.Header) {
		e.rec.GRPC = r.grpc
		if r.grpc == 0 {
			e.rec.GRPC = grpcStatus(r.status)
		}
	}
	e.rec.fail(flagDownstream, r.send(e.x, e.leave))
}
