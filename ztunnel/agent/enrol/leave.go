package enrol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/agent/sockdiag"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Remove takes a running pod out of the mesh so that none of its connections is
// refused or broken: new ones pass by from the moment when the redirecting rules
// go; those that were on their way are taken by the proxy for a moment longer;
// then the proxy is told, and drains. Remove returns when the proxy has confirmed
// it, and by then the pod may be enrolled again. What captured connections need
// is taken away when the last of them has ended, or the drain's deadline has
// passed. A pod that is not enrolled is no error.
//
// Whoever calls it has told the peers before: tunnels are taken only until the
// proxy is told.
func (m *Manager) Remove(ctx context.Context, uid string) error { return m.leave(ctx, uid, false) }

// Gone takes out a pod that was deleted: the proxy is told and the rules go at
// once. A pod that is not enrolled is no error.
func (m *Manager) Gone(ctx context.Context, uid string) error { return m.leave(ctx, uid, true) }

func (m *Manager) leave(ctx context.Context, uid string, gone bool) error {
	if !uidForm.MatchString(uid) {
		return &InvalidError{Reason: fmt.Sprintf("uid %q is none", uid)}
	}
	release, err := m.ops.acquire(ctx, uid)
	if err != nil {
		return err
	}
	defer release()
	m.mu.Lock()
	e := m.pods[uid]
	if e != nil {
		delete(m.pods, uid)
		m.leaving[uid] = e
		e.change()
	} else {
		e = m.leaving[uid]
	}
	m.mu.Unlock()
	if e == nil {
		return m.store.forget(uid)
	}
	if !e.Leaving || gone && !e.Gone {
		next := e.record
		next.Leaving, next.Gone = true, e.Gone || gone
		if next.Left.IsZero() {
			next.Left = time.Now()
		}
		if err := m.store.save(next); err != nil {
			return err // the tick goes on with it
		}
		m.mu.Lock()
		e.Leaving, e.Gone, e.Left = next.Leaving, next.Gone, next.Left
		m.mu.Unlock()
	}
	return m.release(ctx, e)
}

// release does the rest of a removal as far as it can be done now, also after a
// restart: the disk says that the pod leaves until nothing is left of it. The
// caller has the pod's slot.
func (m *Manager) release(ctx context.Context, e *entry) error {
	if !e.Leaving { // could not be written when it was asked for
		next := e.record
		next.Leaving, next.Left = true, time.Now()
		if err := m.store.save(next); err != nil {
			return err
		}
		m.mu.Lock()
		e.Leaving, e.Gone, e.Left = next.Leaving, next.Gone, next.Left
		m.mu.Unlock()
	}
	if !e.told {
		if err := m.part(ctx, e); err != nil {
			return err
		}
		dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
		defer cancel()
		if err := m.cfg.Proxies.Delete(dctx, e.UID); err != nil {
			// It has heard of it, or will by the next list; the pod must not wait.
			m.log.Warn("ztunnel did not confirm that the pod left", append(fields(e.Pod), zap.Error(err))...)
		}
		e.told = true
		m.log.Info("pod released", append(fields(e.Pod), zap.Bool("deleted", e.Gone))...)
	}
	if left, err := m.captives(e); err != nil || left > 0 {
		m.log.Debug("pod drains", append(fields(e.Pod), zap.Int("connections", left), zap.Error(err))...)
		return err
	}
	return m.forget(e)
}

// part ends the capture of new connections and gives those that were on their way
// the time to arrive at the proxy.
func (m *Manager) part(ctx context.Context, e *entry) error {
	if m.deserted(e) || m.shared(e) {
		return nil
	}
	if e.released.IsZero() {
		if err := redirect.Release(e.ns, m.cfg.Rules); err != nil {
			return fmt.Errorf("pod %s/%s: %w", e.Namespace, e.Name, err)
		}
		e.released = time.Now()
	}
	timer := time.NewTimer(time.Until(e.released.Add(m.cfg.Parting)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pod %s/%s: its new connections pass the mesh by, the rest follows: %w", e.Namespace, e.Name, context.Cause(ctx))
	}
}

// deserted tells that nobody is left in the pod's namespace, as far as we know.
func (m *Manager) deserted(e *entry) bool {
	if e.Gone || e.ns == nil {
		return true
	}
	ns, err := reopen(e.record)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	ns.Close()
	return false
}

// captives counts the connections of a leaving pod that still need the
// translation of their addresses.
func (m *Manager) captives(e *entry) (int, error) {
	if m.deserted(e) || m.shared(e) || time.Now().After(e.Left.Add(m.cfg.DrainDeadline)) {
		return 0, nil
	}
	sockets, err := sockdiag.Proxied(e.ns)
	if err != nil {
		return 0, fmt.Errorf("pod %s/%s: %w", e.Namespace, e.Name, err)
	}
	return len(sockets), nil
}

// forget takes away what is left of a pod that left.
func (m *Manager) forget(e *entry) error {
	if e.ns != nil {
		if !m.shared(e) {
			if err := redirect.Remove(e.ns); err != nil {
				return fmt.Errorf("pod %s/%s: %w", e.Namespace, e.Name, err)
			}
		}
		e.ns.Close()
	}
	m.mu.Lock()
	if m.leaving[e.UID] == e {
		delete(m.leaving, e.UID)
	}
	m.mu.Unlock()
	m.log.Info("pod forgotten", fields(e.Pod)...)
	return m.store.forget(e.UID)
}

// shared tells whether another pod on the list has the same namespace, whose
// rules must then stay: a pod that came back under another UID.
func (m *Manager) shared(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.pods {
		if o != e && o.NS == e.NS {
			return true
		}
	}
	return false
}
