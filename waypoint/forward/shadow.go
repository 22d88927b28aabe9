package forward

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// shadows are the copies of requests under way: nobody waits for their responses.
type shadows struct {
	ctx    context.Context
	cancel context.CancelFunc
	places chan struct{}

	mu sync.Mutex // held while one starts, so that none does once they are closed
	wg sync.WaitGroup
}

func (s *shadows) init() {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.places = make(chan struct{}, maxShadows)
}

// close breaks off what is under way, and lets no more begin.
func (s *shadows) close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.wg.Wait()
}

// run starts f, unless too many are under way or they are closed.
func (s *shadows) run(f func(ctx context.Context)) bool {
	select {
	case s.places <- struct{}{}:
	default:
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		<-s.places
		return false
	}
	s.wg.Go(func() {
		defer func() { <-s.places }()
		ctx, cancel := context.WithTimeout(s.ctx, shadowTimeout)
		defer cancel()
		f(ctx)
	})
	return true
}

// mirror sends copies where the rule wants them. Content that passes as it comes is
// not copied.
func (e *exchange) mirror(rule *route.Rule) {
	for i := range rule.Filters {
		m := rule.Filters[i].Mirror
		if m == nil || m.Backend.Fault != "" || !m.Picks(e.f.mirrors.Next()) {
			continue
		}
		key, ok := workload.ParseServiceKey(m.Backend.Service)
		if !ok || e.body.kind == streamed || e.body.kind == switching {
			continue
		}
		r := e.r.Clone()
		e.outgoing(&m.Backend, r)
		bytes, trailer, f, log := e.body.bytes, e.body.trailer, e.f, e.f.log // and nothing of e, which ends before
		if !f.shadows.run(func(ctx context.Context) {
			if err := f.shadow(ctx, key, &m.Backend, r, bytes, trailer); err != nil {
				log.Debug("mirrored request failed", zap.String("backend", m.Backend.Service), zap.Error(err))
			}
		}) {
			log.Debug("request not mirrored: too many are under way", zap.String("backend", m.Backend.Service))
		}
	}
}

// shadow sends one copy and reads the response to its end.
func (f *Forwarder) shadow(ctx context.Context, service workload.ServiceKey, b *route.Backend, r *message.Request, content []byte, trailer message.Header) error {
	to, err := f.cfg.Mesh.Destination(ctx, service, b.Port, b.Subset)
	switch {
	case err != nil:
		return err
	case to.Fault() != "":
		return errors.New(to.Fault())
	}
	protocol := to.Speak(r)
	if isGRPC(r.Header) {
		protocol = upstream.HTTP2
	}
	place, err := to.Request(upstream.Low)
	if err != nil {
		return err
	}
	defer place.Release()
	x, err := to.Send(ctx, protocol, upstream.Options{}, r, len(content) == 0)
	if err != nil {
		return err
	}
	defer x.Close()
	if len(content) > 0 {
		if _, err := x.Write(content); err != nil {
			return err
		}
		if err := x.CloseWrite(trailer); err != nil {
			return err
		}
	}
	for {
		response, err := x.Response(ctx)
		if err != nil {
			return err
		}
		if response.Status == 101 {
			return errors.New("the backend changes the protocol")
		}
		if !response.Interim() {
			break
		}
	}
	_, err = pump(discard{}, x.Body(), nil)
	return err
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (discard) Flush() error                { return nil }

func randomUint64() uint64 { return rand.Uint64() }
