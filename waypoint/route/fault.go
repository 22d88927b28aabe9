package route

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Fault delays or ends some requests before they go to a backend.
type Fault struct {
	// Name is the text of what asked for it.
	Name string
	// Delay and Abort are nil without.
	Delay *FaultDelay
	Abort *FaultAbort

	headers conditions
}

// FaultDelay holds a request up.
type FaultDelay struct {
	Duration time.Duration

	share share
}

// FaultAbort ends a request in the place of a backend.
type FaultAbort struct {
	// Status of HTTP; 0 with GRPC alone, or with Reset.
	Status int
	// GRPC is the status of a call, -1 for that which stands for Status.
	GRPC int
	// Reset breaks the request off without an answer.
	Reset bool

	share share
}

// Hits reports whether the fault is for requests like r.
func (f *Fault) Hits(r *message.Request) bool { return f.headers.inRequest(r) }

// Picks reports whether the request with u is delayed; u is a random number.
func (d *FaultDelay) Picks(u uint64) bool { return d.share.picks(u) }

// Picks reports whether the request with u is ended; u is a random number.
func (a *FaultAbort) Picks(u uint64) bool { return a.share.picks(u) }

// share is a part of all requests.
type share struct{ numerator, denominator uint64 }

func (s share) picks(u uint64) bool {
	at, _ := bits.Mul64(u, s.denominator)
	return at < s.numerator
}

func shareOf(numerator, denominator uint32) (share, error) {
	switch {
	case denominator == 0:
		return share{1, 1}, nil
	case numerator > denominator:
		return share{}, fmt.Errorf("%d of %d requests", numerator, denominator)
	}
	return share{uint64(numerator), uint64(denominator)}, nil
}

func compileFault(f *api.Fault) (*Fault, error) {
	ref := Ref{Kind: f.GetRef().GetKind(), Namespace: f.GetRef().GetNamespace(), Name: f.GetRef().GetName(), Rule: f.GetRef().GetRule()}
	out := &Fault{Name: ref.String()}
	var spoilt match
	out.headers = spoilt.compileConditions("header", f.GetHeaders(), lower)
	if spoilt.fault != "" {
		return nil, fmt.Errorf("fault: %s", spoilt.fault)
	}
	if d := f.GetDelay(); d != nil {
		wait, err := duration(d.GetDuration())
		if err != nil {
			return nil, fmt.Errorf("delay: %w", err)
		}
		part, err := shareOf(d.GetNumerator(), d.GetDenominator())
		if err != nil {
			return nil, fmt.Errorf("delay: %w", err)
		}
		if wait > maxDelay {
			return nil, fmt.Errorf("delay of %v, of %v that is allowed", wait, maxDelay)
		}
		out.Delay = &FaultDelay{Duration: wait, share: part}
	}
	if a := f.GetAbort(); a != nil {
		part, err := shareOf(a.GetNumerator(), a.GetDenominator())
		if err != nil {
			return nil, fmt.Errorf("abort: %w", err)
		}
		abort := &FaultAbort{Status: int(a.GetStatus()), GRPC: -1, Reset: a.GetReset_(), share: part}
		if a.GetHasGrpcStatus() {
			abort.GRPC = int(a.GetGrpcStatus())
		}
		switch {
		case abort.Reset:
		case abort.Status == 0 && abort.GRPC < 0:
			err = errors.New("abort: without a status")
		case abort.Status != 0 && (a.GetStatus() < 200 || a.GetStatus() > 599):
			err = fmt.Errorf("abort: status %d", a.GetStatus())
		case a.GetGrpcStatus() > maxGRPCStatus:
			err = fmt.Errorf("abort: gRPC status %d", a.GetGrpcStatus())
		}
		if err != nil {
			return nil, err
		}
		out.Abort = abort
	}
	return out, nil
}
