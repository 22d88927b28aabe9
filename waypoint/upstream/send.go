package upstream

import (
	"context"
	"errors"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Send chooses a target and sends the head of a request to it, on a pooled
// connection or a new one; with end no content follows. ctx bounds the exchange as it
// does message.Client's Open, and the wait for a connection before.
//
// With an error there is no exchange to close, and message.Unsent tells that the
// request has reached nobody: a *NoEndpointsError, an *OverflowError, a
// *ConnectError, or what the client said. Target is set as soon as one was chosen, to
// be avoided by the next attempt; what speaks against it has been reported.
func (b *Backend) Send(ctx context.Context, p Protocol, o Options, r *message.Request, end bool) (Exchange, error) {
	t, err := b.Pick(o)
	if err != nil {
		return Exchange{}, unsent(err)
	}
	x := Exchange{target: t, call: t.Begin()}
	for stale, full := 0, 0; ; {
		if x.lease, err = t.pools[p].acquire(ctx, stale >= staleTries); err != nil {
			break
		}
		x.reused = x.lease.reused
		if x.ClientExchange, err = x.lease.conn.client.Open(ctx, r, end); err == nil {
			return x, nil
		}
		// A pooled connection may have been closed, or others may have filled it, meanwhile.
		again := x.reused
		if c := x.lease.conn.client; p == HTTP2 && c.Active() > 0 && !ended(c) {
			full++
			again = full <= fullTries
		} else {
			stale++
		}
		x.lease.release()
		if !again || !message.Unsent(err) || ctx.Err() != nil {
			break
		}
	}
	if f := FailureOf(ctx, err); f != NoFailure {
		x.call.Report(Outcome{Failure: f})
	}
	x.call.End()
	x.ClientExchange = nil
	return x, err
}

func ended(c message.Client) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// Exchange is one attempt of a request: the exchange on a connection, and the call
// at the target. Its owner reports how the target answered and closes it.
type Exchange struct {
	message.ClientExchange
	target *Target
	call   Call
	lease  lease
	reused bool
}

// Target is whom the request was sent to; nil when nobody could be chosen.
func (x *Exchange) Target() *Target { return x.target }

// Reused reports whether the connection had carried requests before: the server may
// have closed it when it was idle, just as the request came.
func (x *Exchange) Reused() bool { return x.reused }

// Report is Call.Report.
func (x *Exchange) Report(o Outcome) { x.call.Report(o) }

// Break ends what other goroutines wait in on the exchange. Close is still to be called,
// when they have gone.
func (x *Exchange) Break() {
	if x.ClientExchange != nil {
		_ = x.ClientExchange.Close()
	}
}

// Close releases the exchange, which breaks off what is not finished, gives the
// connection back, and ends the call. It may be called more than once.
func (x *Exchange) Close() error {
	if x.ClientExchange == nil {
		return nil
	}
	err := x.ClientExchange.Close()
	x.ClientExchange = nil
	x.lease.release()
	x.call.End()
	return err
}

// FailureOf says which failure an error of Send, or of an exchange before its
// response, is for the target: NoFailure when the target has no part in it, that is
// when ctx was cancelled, or a limit of ours was reached. A deadline of ctx is the
// target's failure, since nothing else takes the time: ConnectFailed while nothing was
// sent, else TimedOut.
func FailureOf(ctx context.Context, err error) Failure {
	var connect *ConnectError
	var overflow *OverflowError
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	switch {
	case err == nil || errors.As(err, &overflow) || errors.Is(err, ErrNoEndpoints):
		return NoFailure
	case ctx.Err() != nil && !late:
		return NoFailure
	case late && message.Unsent(err) || errors.As(err, &connect):
		// A dialer's own deadline is a failure to connect, too.
		return ConnectFailed
	case message.Unsent(err):
		return Refused
	case late || errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	}
	return Reset
}
