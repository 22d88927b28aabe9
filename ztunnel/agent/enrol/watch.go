package enrol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Restore brings the pods of before a restart back: their rules are in force
// when it returns. It is called once, before the first proxy may connect.
func (m *Manager) Restore(ctx context.Context) {
	records, errs := m.store.load()
	for _, err := range errs {
		m.log.Error("state file is unreadable; its pod stays as it is", zap.Error(err))
	}
	for _, r := range records {
		if ctx.Err() != nil {
			return
		}
		e := &entry{record: r, changed: make(chan struct{}), strictSince: r.Since}
		ns, err := reopen(r)
		if err == nil {
			e.ns = ns
		}
		m.mu.Lock()
		if r.Leaving {
			m.leaving[r.UID] = e
		} else {
			m.pods[r.UID] = e
		}
		m.mu.Unlock()
		switch {
		case r.Leaving: // the next tick goes on with it
		case err != nil:
			m.log.Warn("namespace of an enrolled pod cannot be opened; ztunnel is asked to keep it", append(fields(r.Pod), zap.Error(err))...)
		default:
			m.check(ctx, e)
		}
	}
	m.releaseLeaving()
	if len(records) > 0 {
		m.log.Info("pods of before the restart are captured", zap.Int("pods", len(records)))
	}
}

// releaseLeaving ends the capture of pods that were leaving when the agent ended,
// before a proxy gets a list on which they are not. When that fails, the tick
// tries again.
func (m *Manager) releaseLeaving() {
	for _, e := range m.leaving { // nobody else is there yet
		if m.deserted(e) || m.shared(e) {
			continue
		}
		if err := redirect.Release(e.ns, m.cfg.Rules); err != nil {
			m.log.Warn("rules of a pod that leaves stay for now", append(fields(e.Pod), zap.Error(err))...)
			continue
		}
		e.released = time.Now()
	}
}

// Run looks after the pods until ctx ends. Rules stay when it returns: without
// an agent, pods stay captured.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			m.tick(ctx)
		}
	}
}

func (m *Manager) tick(ctx context.Context) {
	m.mu.Lock()
	var stay, leave []*entry
	for _, e := range m.pods {
		stay = append(stay, e)
	}
	for _, e := range m.leaving {
		leave = append(leave, e)
	}
	m.mu.Unlock()
	for _, e := range stay {
		if ctx.Err() != nil {
			return
		}
		m.withSlot(e, m.pods, func() { m.check(ctx, e) })
	}
	for _, e := range leave {
		if ctx.Err() != nil {
			return
		}
		m.withSlot(e, m.leaving, func() {
			if err := m.release(ctx, e); err != nil {
				m.log.Warn("pod is not released yet", append(fields(e.Pod), zap.Error(err))...)
			}
		})
	}
}

// withSlot runs f when nobody works on the pod and e is still the one in list.
func (m *Manager) withSlot(e *entry, list map[string]*entry, f func()) {
	release, ok := m.ops.try(e.UID)
	if !ok {
		return
	}
	defer release()
	m.mu.Lock()
	current := list[e.UID] == e
	m.mu.Unlock()
	if current {
		f()
	}
}

// check compares a pod's rules, repairs them, asks the proxy again where it
// refused, and looks after older connections. The caller has the pod's slot.
func (m *Manager) check(ctx context.Context, e *entry) {
	if e.ns == nil && !m.regain(e) {
		return
	}
	if m.waitsForProxy(e) {
		m.checkJoin(ctx, e)
		return
	}
	diffs, err := m.compare(e)
	if err != nil {
		m.log.Warn("cannot compare the pod's rules", append(fields(e.Pod), zap.Error(err))...)
	}
	m.mu.Lock()
	captured, refused := e.captured, e.refusal != ""
	m.mu.Unlock()
	if len(diffs) > 0 || !captured {
		if captured {
			m.metrics.repairs.Inc()
			m.log.Warn("somebody changed the pod's rules; they are written again", append(fields(e.Pod), zap.Strings("differences", diffs))...)
		}
		if err := m.capture(e); err != nil {
			m.log.Error("the pod is not captured", append(fields(e.Pod), zap.Error(err))...)
			return
		}
		if captured {
			m.mu.Lock()
			e.older.until = time.Time{} // what began without rules goes past the proxy
			m.mu.Unlock()
		} else {
			refused = true // never sent
		}
	}
	if refused && ctx.Err() == nil {
		m.cfg.Proxies.Send(e.UID)
	}
	now := time.Now()
	m.lookForOlder(e, now)
	m.endOlder(e, now)
}

// checkJoin goes on with a running pod that is not captured yet.
func (m *Manager) checkJoin(ctx context.Context, e *entry) {
	captured, err := m.joinNow(e)
	switch {
	case err != nil:
		m.log.Error("the pod is not captured", append(fields(e.Pod), zap.Error(err))...)
	case !captured && ctx.Err() == nil:
		m.cfg.Proxies.Send(e.UID)
	}
}

// compare tells how the pod's rules differ from ours. It looks only at the
// number of the rules' last change while nothing else is due. The caller has the
// pod's slot.
func (m *Manager) compare(e *entry) ([]string, error) {
	generation, err := redirect.Generation(e.ns)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if e.compared.generation == generation && now.Before(e.compared.until) {
		return nil, nil
	}
	diffs, err := redirect.Verify(e.ns, m.cfg.Rules)
	if err == nil && len(diffs) == 0 {
		e.compared.generation, e.compared.until = generation, now.Add(fullInterval)
	}
	return diffs, err
}

// regain tries to get the namespace of a pod that could not be opened at the
// restart. When it does not exist and the proxy has not got it either, nobody
// knows the pod any more, and it is forgotten.
func (m *Manager) regain(e *entry) bool {
	ns, err := reopen(e.record)
	if err == nil {
		m.mu.Lock()
		e.ns = ns
		m.mu.Unlock()
		return true
	}
	m.mu.Lock()
	lost := errors.Is(err, os.ErrNotExist) && e.refusal != ""
	if lost {
		delete(m.pods, e.UID)
		e.change()
	}
	m.mu.Unlock()
	if lost {
		m.log.Info("pod is gone", append(fields(e.Pod), zap.Error(err))...)
		if err := m.store.forget(e.UID); err != nil {
			m.log.Warn("state file stays", zap.Error(fmt.Errorf("pod %s: %w", e.UID, err)))
		}
	}
	return false
}
