package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/internal/backoff"
)

// Shares is a stream of api/lease.
type Shares interface {
	Send(*api.Report) error
	Recv() (*api.Grant, error)
	CloseSend() error
}

// leases are the counters whose limits are shared among replicas.
type leases struct {
	mu       sync.Mutex
	counters map[string]*Counter
	// rest are the last shares of rules, also of those that are made anew.
	rest map[string]uint32
	// own are keys with shares of their own, by rule and hash.
	own     map[string]map[uint64]uint32
	changed chan struct{} // holds one when the counters are others
}

func (l *leases) init() {
	l.counters, l.rest, l.own = map[string]*Counter{}, map[string]uint32{}, map[string]map[uint64]uint32{}
	l.changed = make(chan struct{}, 1)
}

func (l *leases) add(c *Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters[c.name] = c
	if share, ok := l.rest[c.name]; ok {
		c.share.rest.Store(share)
		c.share.set(l.own[c.name])
	}
	l.touch()
}

func (l *leases) remove(c *Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counters[c.name] == c {
		delete(l.counters, c.name)
		delete(l.rest, c.name)
		delete(l.own, c.name)
		l.touch()
	}
}

func (l *leases) touch() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// rules returns the names of all counters.
func (l *leases) rules() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(l.counters))
	for name := range l.counters {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// held returns the shares that are gone by.
func (l *leases) held() []*api.Share {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*api.Share
	for name := range l.counters {
		if share, ok := l.rest[name]; ok {
			out = append(out, &api.Share{Rule: name, Share: share})
		}
		for key, share := range l.own[name] {
			out = append(out, &api.Share{Rule: name, Key: key, Share: share})
		}
	}
	return out
}

// apply puts a grant in force.
func (l *leases) apply(g *api.Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	touched := map[string]bool{}
	for _, s := range g.GetShares() {
		c, share := l.counters[s.GetRule()], min(s.GetShare(), fullShare)
		if c == nil {
			continue
		}
		if s.GetKey() == 0 {
			l.rest[c.name] = share
			c.share.rest.Store(share)
			continue
		}
		if l.own[c.name] == nil {
			l.own[c.name] = map[uint64]uint32{}
		}
		if s.GetDropped() {
			delete(l.own[c.name], s.GetKey())
		} else {
			l.own[c.name][s.GetKey()] = share
		}
		touched[c.name] = true
	}
	for name := range touched {
		l.counters[name].share.set(l.own[name])
	}
}

// hashOf names a key in leases: the same at all replicas, and not its values.
func (c *Counter) hashOf(key string) uint64 {
	h := xxhash.Sum64String(key[len(c.prefix):])
	if h == 0 {
		return 1
	}
	return h
}

// demands returns what was asked for of keys that are near their limit, or that have a
// share of their own, and begins to count anew.
func (l *Limiter) demands(since time.Duration) []*api.Demand {
	l.leases.mu.Lock()
	counters := make([]*Counter, 0, len(l.leases.counters))
	for _, c := range l.leases.counters {
		counters = append(counters, c)
	}
	l.leases.mu.Unlock()
	var out []*api.Demand
	for _, c := range counters {
		if len(out) >= maxDemands {
			break // the others are told of next
		}
		for _, e := range c.share.collect() {
			s := l.keys.shardOf(e.key)
			s.mu.Lock()
			demand := e.demand
			e.demand, e.reported = 0, false
			s.mu.Unlock()
			out = append(out, &api.Demand{Rule: c.name, Key: c.hashOf(e.key), Rate: float64(demand) / since.Seconds()})
		}
		// What is asked for from here on belongs to the next report.
		c.share.epoch.Add(1)
	}
	return out
}

// Lease goes by the shares of limits that the control plane hands out, until ctx ends.
// open makes a stream; it is tried again when it breaks, and the last shares hold
// meanwhile. Each report is interval after the last.
func (l *Limiter) Lease(ctx context.Context, replica string, interval time.Duration, open func(context.Context) (Shares, error)) error {
	wait := backoff.New(leaseRetryMin, leaseRetryMax)
	level := zap.InfoLevel // once, and again after it has worked for a while
	for ctx.Err() == nil {
		// Nobody is asked while there is nothing to share.
		if len(l.leases.rules()) == 0 {
			select {
			case <-ctx.Done():
			case <-l.leases.changed:
			}
			continue
		}
		began := time.Now()
		err := l.leaseOnce(ctx, replica, interval, open)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > leaseRetryMax {
			wait.Reset()
			level = zap.InfoLevel
		}
		l.log.Log(level, "shares of rate limits stay as they are until the control plane is back", zap.Error(err))
		level = zap.DebugLevel
		select {
		case <-ctx.Done():
		case <-time.After(wait.Next()):
		}
	}
	return nil
}

func (l *Limiter) leaseOnce(ctx context.Context, replica string, interval time.Duration, open func(context.Context) (Shares, error)) error {
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s, err := open(inner)
	if err != nil {
		return err
	}
	if err := s.Send(&api.Report{Replica: replica, HasRules: true, Rules: l.leases.rules(), Held: l.leases.held()}); err != nil {
		return errors.Join(err, drained(s))
	}
	grants, broken := make(chan *api.Grant), make(chan error, 1)
	go func() {
		for {
			g, err := s.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case grants <- g:
			case <-inner.Done():
				broken <- inner.Err()
				return
			}
		}
	}()
	joined := false
	defer func() {
		if end(); !joined {
			<-broken
		}
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := time.Now()
	for {
		report := &api.Report{}
		select {
		case <-ctx.Done():
			// Its shares are free at once.
			_ = s.Send(&api.Report{Leaving: true})
			_ = s.CloseSend()
			select {
			case <-broken:
				joined = true
			case <-time.After(leaseFarewell):
			}
			return nil
		case err := <-broken:
			joined = true
			return err
		case g := <-grants:
			l.leases.apply(g)
			report.Serial = g.GetSerial()
		case <-l.leases.changed:
			report.HasRules, report.Rules = true, l.leases.rules()
		case now := <-ticker.C:
			report.Demands = l.demands(now.Sub(last))
			if last = now; len(report.Demands) == 0 {
				continue
			}
		}
		if err := s.Send(report); err != nil {
			joined = true
			return errors.Join(err, <-broken)
		}
	}
}

// drained returns why a stream broke, which gRPC tells those who read.
func drained(s Shares) error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}
