package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Client is who sends the requests of one connection.
type Client struct {
	Identity spiffeid.ID
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
}

// Config makes a Forwarder.
type Config struct {
	Mesh *mesh.Mesh
	// Identity is the waypoint's own, for the applications.
	Identity spiffeid.ID
	// Report gets every request when it is over; nil nobody. It must not block.
	Report func(*Record)
	Logger *zap.Logger
}

// Forwarder serves requests. It is safe for concurrent use.
type Forwarder struct {
	cfg Config
	log *zap.Logger
	// backends and mirrors spread requests over their choices.
	backends, mirrors route.Spread
	shadows           shadows
}

// New returns a Forwarder; Close ends it.
func New(cfg Config) *Forwarder {
	f := &Forwarder{cfg: cfg, log: cfg.Logger}
	f.backends.Start(randomUint64())
	f.mirrors.Start(randomUint64())
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
	e := &exchange{f: f, c: c, x: x, r: x.Request(), rec: Record{Start: time.Now(), Client: c}}
	e.rec.describe(e.r)
	e.guarded(ctx)
	e.rec.Received = e.body.total()
	e.rec.Duration = time.Since(e.rec.Start)
	if f.cfg.Report != nil {
		f.cfg.Report(&e.rec)
	}
}

// exchange is one request under way.
type exchange struct {
	f   *Forwarder
	c   *Client
	x   message.Exchange
	r   *message.Request
	rec Record
	// d is what the route decided, b the backend that was picked, nil for the service
	// itself.
	d route.Decision
	b *route.Backend
	// affinity and session are what binds the client to an endpoint, nil without.
	affinity *upstream.Affinity
	session  upstream.Session
	// body is the request's content.
	body content
	// limit is that of its time, set by forward.
	limit limit
	// id is the x-request-id, where the client sent none.
	id string
	// origin is what a browser's script asked from, as the client sent it.
	origin string
}

// guarded keeps a fault of ours in one request from ending all others.
func (e *exchange) guarded(ctx context.Context) {
	defer func() {
		if fault := recover(); fault != nil {
			err := fmt.Errorf("internal fault: %v", fault)
			e.f.log.Error("request broken off", zap.Error(err), zap.Stack("stack"))
			e.rec.fail(flagDownstream, err)
			e.x.Abort(err)
		}
	}()
	e.serve(ctx)
}

func (e *exchange) serve(ctx context.Context) {
	svc := e.f.cfg.Mesh.Service(e.c.Service)
	if svc == nil {
		e.reply(reply{status: 503, flag: flagNoRoute, text: "the service is not served here any more"})
		return
	}
	e.rec.Service = svc.Name
	permit, err := e.authorize(ctx, svc)
	if err != nil {
		e.rec.Err = err
		e.deny(err)
		return
	}
	e.rec.Policy = permit.Policy()
	port := svc.Port(e.c.Port)
	if port == nil {
		e.reply(reply{status: 503, flag: flagNoRoute, text: "the service has no such port"})
		return
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
		return
	}
	if rule := e.d.Rule; rule != nil {
		if e.answer(rule) {
			return
		}
		if asks(rule.Filters) {
			e.rec.Detail = noExternalAuth
			e.reply(reply{status: 500, flag: flagNoRoute, text: "the route cannot be followed", grpc: grpcUnavailable})
			return
		}
		e.b = rule.Pick(e.f.backends.Next())
		if status, grpc, refused := e.b.Refusal(); refused {
			if e.b != nil {
				e.rec.Detail = e.b.Fault
			}
			e.reply(reply{status: status, flag: flagNoRoute, text: "the route has no backend for this request", grpc: grpc})
			return
		}
		if asks(e.b.Filters) {
			e.rec.Detail = noExternalAuth
			e.reply(reply{status: 500, flag: flagNoRoute, text: "the route cannot be followed", grpc: grpcUnavailable})
			return
		}
	}
	e.forward(ctx, permit)
}

// noExternalAuth is why a rule that asks an authorizer is not followed: passing the
// request unasked would let in whom its author wanted asked about.
const noExternalAuth = "this waypoint asks no external authorizers"

func asks(filters route.Filters) bool {
	return slices.ContainsFunc(filters, func(f route.Filter) bool { return f.ExternalAuth != nil })
}

// answer gives the answers of the rule itself, and reports whether it did.
func (e *exchange) answer(rule *route.Rule) bool {
	if cors := rule.Filters.CORS(); cors != nil {
		e.origin = e.r.Header.Get("origin")
		if r := cors.Preflight(e.r); r != nil {
			e.respond(r)
			return true
		}
	}
	if x := rule.Filters.Redirect(); x != nil {
		r := x.Respond(e.d, e.r, e.c.Port)
		e.d.ApplyResponse(nil, r)
		e.respond(r)
		return true
	}
	return false
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
	e.rec.fail(flagDownstream, r.send(e.x))
}

// deny answers a request that may not pass.
func (e *exchange) deny(err error) {
	var refusal *jwt.Refusal
	if !errors.As(err, &refusal) {
		e.reply(reply{status: 403, flag: flagDenied, text: "access denied by policy"})
		return
	}
	r := reply{status: refusal.Status, flag: flagDenied, text: "the request's token is not accepted"}
	if challenge := refusal.Challenge(); challenge != "" {
		r.header = message.Header{{Name: "www-authenticate", Value: challenge}}
	}
	e.reply(r)
}

// authorize checks the request's token and asks the service's policies. The error is a
// *jwt.Refusal or a *request.Denial.
func (e *exchange) authorize(ctx context.Context, svc *mesh.Service) (request.Permit, error) {
	attributes := request.Attributes{
		Source: e.c.Source.Addr(), Remote: e.c.Source.Addr(), Peer: e.c.Peer, Destination: e.c.Destination,
		Request: &request.Request{
			Method: e.r.Method, Scheme: e.r.Scheme, Authority: e.r.Authority, Path: e.r.Path, Folded: message.Folded(e.r.Path),
			Query: e.r.Query, HasQuery: e.r.HasQuery, Protocol: e.r.Protocol, Fields: &e.r.Header,
		},
	}
	// CUSTOM policies judge the request as it was sent. Nobody is asked yet: they deny
	// what they fit.
	consent := svc.Policies.Consult(&attributes)
	if !svc.Tokens.Empty() {
		token, err := svc.Tokens.Check(ctx, e.r)
		if err != nil {
			return request.Permit{}, err
		}
		attributes.Request.Token, attributes.Request.Fields = token, &e.r.Header
		attributes.Request.Query, attributes.Request.HasQuery = e.r.Query, e.r.HasQuery
	}
	permit, observed, err := svc.Policies.Authorize(&attributes, consent)
	for _, o := range observed {
		if o.Matched || o.WouldDeny {
			e.f.log.Info("policy that is not enforced fits", zap.String("policy", o.Policy), zap.Bool("would_deny", o.WouldDeny),
				zap.Stringer("src.identity", e.c.Identity), zap.String("path", e.r.Path))
		}
	}
	return permit, err
}
