package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// population is the pods of services, the ones that have been there the longest
// first.
type population struct {
	mesh    *mesh
	tracker *tracker

	mu   sync.Mutex
	pods []pod
}

// populate makes the first pods, all of which run.
func populate(ctx context.Context, m *mesh, t *tracker) (*population, error) {
	p := &population{mesh: m, tracker: t}
	err := each(ctx, m.opts.pods, func(ctx context.Context, i int) error {
		made, object, err := m.create(ctx, i%m.opts.services)
		if err == nil {
			err = m.start(ctx, object)
		}
		if err == nil {
			p.add(made)
		}
		return err
	})
	rand.Shuffle(len(p.pods), func(i, j int) { p.pods[i], p.pods[j] = p.pods[j], p.pods[i] })
	return p, err
}

func (p *population) add(made pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	made.since = time.Now()
	p.pods = append(p.pods, made)
}

// oldest takes out the pod that is to be replaced next.
func (p *population) oldest() (pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pods) == 0 || time.Since(p.pods[0].since) < restingAge {
		return pod{}, errors.New("too few pods for this rate of changes")
	}
	first := p.pods[0]
	p.pods = p.pods[1:]
	return first, nil
}

// some returns pods that exist now.
func (p *population) some() []pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]pod(nil), p.pods...)
}

// churn makes changes at a rate: in turn a pod goes and another one of its
// service comes. It returns how many were written.
func (p *population) churn(ctx context.Context, rate int, d time.Duration) (written int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	slots := make(chan struct{}, churnWriters)
	var wg sync.WaitGroup
	defer wg.Wait()
	var last pod
	for {
		select {
		case <-ctx.Done():
			return written, context.Cause(ctx)
		case <-end.C:
			wg.Wait()
			return written, context.Cause(ctx)
		case <-ticker.C:
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return written, context.Cause(ctx)
		}
		var work func() error
		if written%2 == 0 {
			if last, err = p.oldest(); err != nil {
				return written, err
			}
			leaves := last
			work = func() error { return p.leave(ctx, leaves) }
		} else {
			service := last.service
			work = func() error { return p.come(ctx, service) }
		}
		written++
		wg.Go(func() {
			defer func() { <-slots }()
			if err := work(); err != nil {
				cancel(fmt.Errorf("churn: %w", err))
			}
		})
	}
}

func (p *population) leave(ctx context.Context, leaves pod) error {
	p.tracker.expect(leaves.uid(), gone, time.Now())
	err := p.mesh.remove(ctx, leaves)
	if err != nil {
		p.tracker.forget(leaves.uid(), gone)
		return err
	}
	p.tracker.wrote(leaves.uid(), gone, time.Now())
	return nil
}

func (p *population) come(ctx context.Context, service int) error {
	made, object, err := p.mesh.create(ctx, service)
	if err != nil {
		return err
	}
	p.tracker.expect(made.uid(), appeared, time.Now())
	if err := p.mesh.start(ctx, object); err != nil {
		p.tracker.forget(made.uid(), appeared)
		return err
	}
	p.tracker.wrote(made.uid(), appeared, time.Now())
	p.add(made)
	return nil
}

// arrived waits until every change has reached every proxy or is lost.
func (t *tracker) arrived(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for t.pending(time.Now()) > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
