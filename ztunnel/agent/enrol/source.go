package enrol

import (
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/agent/proxies"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// A Manager is the Source of a proxies.Server.
var _ proxies.Source = (*Manager)(nil)

// UIDs implements proxies.Source: the pods whose rules are in force, and those
// whose rules wait for the proxy.
func (m *Manager) UIDs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	uids := make([]string, 0, len(m.pods))
	for uid, e := range m.pods {
		if e.captured || e.ns == nil || e.proxyFirst() {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

// Request implements proxies.Source. The proxy hears of a pod only when its
// rules are in force, unless they wait for its ack. A pod whose namespace we do not hold since a restart can
// only be kept.
func (m *Manager) Request(uid string) (zds.Request, func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.pods[uid]
	switch {
	case e == nil, e.ns != nil && !e.captured && !e.proxyFirst():
		return nil, nil
	case e.ns == nil:
		return &zds.Keep{UID: uid}, func(err error) { m.answered(e, err) }
	}
	ns, err := e.ns.Dup()
	if err != nil {
		m.log.Error("cannot hand the pod's namespace to ztunnel", append(fields(e.Pod), zap.Error(err))...)
		return nil, nil
	}
	return &zds.Add{UID: uid, Info: e.info(), NS: ns}, func(err error) {
		ns.Close()
		m.answered(e, err)
	}
}

func (m *Manager) answered(e *entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[e.UID] != e || errors.Is(err, proxies.ErrUnanswered) {
		return
	}
	if err != nil {
		var refused *zds.RefusedError
		e.acked, e.refusal = false, err.Error()
		if errors.As(err, &refused) {
			e.refusal = refused.Reason
		}
		m.log.Warn("ztunnel refused a pod", append(fields(e.Pod), zap.String("reason", e.refusal), zap.Bool("captured", e.captured))...)
	} else {
		if !e.acked {
			m.log.Info("pod acknowledged by ztunnel", append(fields(e.Pod), zap.Bool("captured", e.captured))...)
		}
		e.acked, e.refusal = true, ""
	}
	e.change()
}

// Connected implements proxies.Source.
func (m *Manager) Connected(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected = yes
	for _, e := range m.pods {
		if !yes {
			e.acked, e.refusal = false, ""
		}
		e.change()
	}
}
