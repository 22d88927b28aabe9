package extauthz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// Timeout is how long a question may take.
func Timeout(auth *api.ExternalAuth) time.Duration {
	if d := auth.GetTimeout(); d != nil && d.AsDuration() > 0 {
		return min(d.AsDuration(), maxTimeout)
	}
	return defaultTimeout
}

// Content returns how much of a request's content the authorizer wants.
func Content(auth *api.ExternalAuth) int {
	return int(min(auth.GetMaxBodyBytes(), MaxBodyBytes))
}

// Failed is the answer to a request that could not be asked about.
func Failed(auth *api.ExternalAuth, err error) *Answer {
	a := &Answer{Err: err, allowed: auth.GetFailOpen()}
	if a.Status = int(auth.GetStatusOnError()); a.Status < 200 || a.Status > 599 {
		a.Status = 403
	}
	return a
}

// ErrLate is what Err is of an Answer that did not come in time.
var ErrLate = errors.New("no answer in time")

// late is ErrLate, and says what that time was.
type late struct{ limit time.Duration }

func (e late) Error() string        { return fmt.Sprintf("no answer within %v", e.limit) }
func (e late) Is(target error) bool { return target == ErrLate }

// InTime returns a context that ends after Timeout, because of ErrLate.
func InTime(ctx context.Context, auth *api.ExternalAuth) (context.Context, context.CancelFunc) {
	timeout := Timeout(auth)
	return context.WithTimeoutCause(ctx, timeout, late{timeout})
}

// Copies is how many copies of a Question's Body asking makes, which live until then.
func Copies(auth *api.ExternalAuth) int {
	if auth.GetGrpc() {
		return 2 // in the message's fields, and on the wire
	}
	return 0
}

// Ask asks the authorizer at one of the backend's endpoints, in at most Timeout. It
// speaks HTTP/2 to one that speaks gRPC, else protocol. It never returns nil.
func Ask(ctx context.Context, auth *api.ExternalAuth, backend *upstream.Backend, protocol upstream.Protocol, q *Question) *Answer {
	ctx, cancel := InTime(ctx, auth)
	defer cancel()
	var r *message.Request
	var content []byte
	var err error
	if auth.GetGrpc() {
		protocol = upstream.HTTP2
		r, content, err = callOf(auth, q, Timeout(auth))
	} else {
		r, content, err = requestOf(auth, q)
	}
	if err != nil {
		return Failed(auth, err)
	}
	place, err := backend.Request(upstream.High)
	if err != nil {
		return Failed(auth, fmt.Errorf("ask %s: %w", backend.Name(), err))
	}
	defer place.Release()
	got, err := send(ctx, backend, protocol, r, content)
	if err == nil {
		var a *Answer
		if auth.GetGrpc() {
			a, err = readCall(got)
		} else {
			a, err = readResponse(auth, got)
		}
		if err == nil {
			return a
		}
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return Failed(auth, fmt.Errorf("ask %s: %w", backend.Name(), err))
}

// reply is what came back.
type reply struct {
	head    *message.Response
	content []byte
	trailer message.Header
}

// send sends a question until it has an answer, at another endpoint where it has
// reached nobody.
func send(ctx context.Context, backend *upstream.Backend, protocol upstream.Protocol, r *message.Request, content []byte) (*reply, error) {
	var tried []*upstream.Target
	for attempt := 1; ; attempt++ {
		x, err := backend.Send(ctx, protocol, upstream.Options{Avoid: tried}, r, len(content) == 0)
		if x.Target() != nil {
			tried = append(tried, x.Target())
		}
		again := message.Unsent(err)
		if err == nil {
			var got *reply
			got, err = exchange(ctx, &x, content)
			outcome := upstream.Outcome{GRPC: -1, Failure: upstream.FailureOf(ctx, err)}
			if got != nil {
				outcome.Status = got.head.Status
			}
			x.Report(outcome)
			// A question changes nothing at the authorizer: a server that closed an idle
			// connection just then may be asked again.
			again = message.Unsent(err) || x.Reused() && outcome.Failure == upstream.Reset
			_ = x.Close()
			if err == nil {
				return got, nil
			}
		}
		if !again || attempt == maxAttempts || ctx.Err() != nil {
			return nil, err
		}
	}
}

func exchange(ctx context.Context, x *upstream.Exchange, content []byte) (*reply, error) {
	if len(content) > 0 {
		if _, err := x.Write(content); err != nil {
			return nil, err
		}
		if err := x.CloseWrite(nil); err != nil {
			return nil, err
		}
	}
	for {
		head, err := x.Response(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case head.Status == 101:
			return nil, errors.New("the authorizer changes the protocol")
		case head.Interim():
			continue
		}
		got := &reply{head: head}
		got.content, err = readAll(x.Body())
		got.trailer = x.Body().Trailer()
		return got, err
	}
}

// readAll reads content of at most maxAnswerBytes.
func readAll(b message.Body) ([]byte, error) {
	content := make([]byte, 0, 512)
	for {
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
		n, err := b.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		switch {
		case len(content) > maxAnswerBytes:
			return nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswerBytes)
		case errors.Is(err, io.EOF):
			return content, nil
		case err != nil:
			return nil, err
		}
	}
}
