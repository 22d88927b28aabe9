package forward

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Refusal is why a connection that is carried as bytes leads nowhere.
type Refusal struct {
	// Status is what its tunnel is answered: 401 for a denial, else 503.
	Status int
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// Connector connects to endpoints for bytes.
type Connector func(ctx context.Context, e *upstream.Endpoint) (net.Conn, error)

// Bytes is a connection to an endpoint that was chosen for a client.
type Bytes struct {
	conn   net.Conn
	call   upstream.Call
	place  upstream.Permit
	report func(*Record)
	rec    Record
}

// Connect asks the policies, follows the routes of the service's port, and connects to
// an endpoint. The error is a *Refusal.
func (f *Forwarder) Connect(ctx context.Context, c *Client, svc *mesh.Service, connect Connector) (*Bytes, error) {
	b := &Bytes{report: f.cfg.Report, rec: Record{Start: time.Now(), Client: c, Service: svc.Name, GRPC: -1}}
	err := b.connect(ctx, f, svc, connect)
	if err == nil {
		b.rec.Opened = true
		if f.cfg.Opened != nil {
			f.cfg.Opened(&b.rec)
		}
		return b, nil
	}
	refusal := &Refusal{Status: 503, Err: err}
	var denial *request.Denial
	var asked *authorizerRefusal
	if errors.As(err, &denial) || errors.As(err, &asked) {
		refusal.Status = 401
	}
	b.rec.Err = err
	b.end()
	return nil, refusal
}

func (b *Bytes) connect(ctx context.Context, f *Forwarder, svc *mesh.Service, connect Connector) error {
	c := b.rec.Client
	attributes := request.Attributes{Source: c.Source.Addr(), Remote: c.Source.Addr(), Peer: c.Peer, Destination: c.Destination}
	consent := svc.Policies.Consult(&attributes)
	b.rec.Flag = flagDenied
	if err := f.askBytes(ctx, c, &consent); err != nil {
		return err
	}
	permit, _, err := svc.Policies.Authorize(&attributes, consent)
	if err != nil {
		return err
	}
	b.rec.Policy = permit.Policy()
	b.rec.Flag = flagNoRoute
	port := svc.Port(c.Port)
	if port == nil {
		return errors.New("the service has no such port")
	}
	d := port.Connect(c.Peer.Namespace(), c.ServerName)
	if _, _, refused := d.Refusal(); refused {
		return errors.New("no route leads there: " + d.Fault())
	}
	if err := b.ration(ctx, f.cfg.Mesh, svc, d.Rule); err != nil {
		return err
	}
	key, number, subset := c.Service, c.Port, ""
	if d.Rule != nil {
		b.rec.Route = d.Rule.Name
		to := d.Rule.Pick(f.backends.Next())
		if _, _, refused := to.Refusal(); refused {
			return errors.New("the route has no backend")
		}
		var ok bool
		if key, ok = workload.ParseServiceKey(to.Service); !ok {
			return errors.New("the route has no backend")
		}
		number, subset = to.Port, to.Subset
	}
	up, err := f.cfg.Mesh.Destination(ctx, key, number, subset)
	if err != nil {
		return err
	}
	if fault := up.Fault(); fault != "" {
		return errors.New("nothing can be sent to the backend: " + fault)
	}
	b.rec.Backend = up.Name()
	if b.place, err = up.Connection(); err != nil {
		b.rec.Flag = flagOverflow
		return err
	}
	var o upstream.Options
	o.Hash, o.Hashed, _ = up.Key(nil, c.Source.Addr())
	for {
		target, err := up.Pick(o)
		if err != nil {
			b.rec.Flag = flagNoHealthy
			return err
		}
		b.rec.Attempts++
		b.rec.Target = target
		b.call = target.Begin()
		if b.conn, err = connect(ctx, target.Endpoint()); err == nil {
			b.rec.Flag = ""
			b.call.Report(upstream.Outcome{Status: 200, GRPC: -1})
			return nil
		}
		b.call.Report(upstream.Outcome{Failure: upstream.FailureOf(ctx, &upstream.ConnectError{Endpoint: b.rec.Endpoint(), Err: err}), GRPC: -1})
		b.call.End()
		o.Avoid = append(o.Avoid, target)
		if len(o.Avoid) == connectAttempts || ctx.Err() != nil {
			b.rec.Flag = flagUpstreamConnect
			return err
		}
	}
}

// Carry carries bytes between the client and the endpoint until both directions have
// ended, or ctx does.
func (b *Bytes) Carry(ctx context.Context, client net.Conn) {
	var err error
	b.rec.Received, b.rec.Sent, err = splice(ctx, streamOf(client), streamOf(b.conn))
	b.rec.fail(flagDownstream, err)
	b.end()
}

// Abandon ends it without a client.
func (b *Bytes) Abandon(err error) {
	_ = b.conn.Close()
	b.rec.fail(flagDownstream, err)
	b.end()
}

func (b *Bytes) end() {
	b.call.End()
	b.place.Release()
	b.rec.Duration = time.Since(b.rec.Start)
	if b.report != nil {
		b.report(&b.rec)
	}
}

// streamOf returns c as a Stream.
func streamOf(c net.Conn) message.Stream {
	if s, ok := c.(message.Stream); ok {
		return s
	}
	return wholeClose{c}
}

// wholeClose is a connection that knows no half-close.
type wholeClose struct{ net.Conn }

func (c wholeClose) CloseWrite() error { return nil }
