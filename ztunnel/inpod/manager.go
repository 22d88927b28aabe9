package inpod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

// errGone is the start's error of a pod that left meanwhile.
var errGone = errors.New("the pod left meanwhile")

// manager owns all pods. Its fields belong to the goroutine of run; starts and
// drains run on goroutines of their own and come back through channels.
type manager struct {
	client *Client
	// pods are the enrolled pods by UID.
	pods map[string]*pod
	// draining counts, per namespace, the proxies that left and are not done.
	draining map[netns.ID]int
	session  int
	// listed ends the readiness task of the first complete list.
	listed  func()
	started chan startResult
	drained chan netns.ID
	wg      sync.WaitGroup
	// answers leave after publish: who was answered may look.
	answers []answer
}

type answer struct {
	to  chan error
	err error
}

type pod struct {
	Pod
	// session is the connection in which the agent last spoke of the pod.
	session  int
	proxy    Proxy
	starting bool
	stop     context.CancelCauseFunc // ends a running start
	gone     bool                    // left while starting
	err      error
	waiting  []chan error
	ready    func() // ends the readiness task
	retry    *time.Timer
}

type startResult struct {
	pod   *pod
	proxy Proxy
	err   error
}

func newManager(c *Client) *manager {
	return &manager{
		client: c, pods: map[string]*pod{}, draining: map[netns.ID]int{},
		listed:  c.cfg.Readiness.Pending("list of the node agent's pods"),
		started: make(chan startResult), drained: make(chan netns.ID),
	}
}

func (m *manager) run(ctx context.Context, requests <-chan request) {
	retries := make(chan *pod)
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-requests:
			m.handle(ctx, r)
		case p := <-retries:
			if m.pods[p.UID] == p && p.proxy == nil && !p.starting {
				m.start(ctx, p)
			}
		case res := <-m.started:
			m.finish(ctx, res, retries)
		case id := <-m.drained:
			m.forget(id)
		}
		m.publish()
	}
}

// shutdown ends what run left behind.
func (m *manager) shutdown() {
	for _, p := range m.pods {
		m.remove(p, "the proxy stops")
	}
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	for {
		select {
		case res := <-m.started:
			m.finish(context.Background(), res, nil)
		case id := <-m.drained:
			m.forget(id)
		case <-done:
			m.publish()
			return
		}
	}
}

func (m *manager) handle(ctx context.Context, r request) {
	switch message := r.message.(type) {
	case nil:
		m.session = r.session
		m.answer(r.reply, nil)
	case *zds.Add:
		m.add(ctx, message, r)
	case *zds.Keep:
		p, ok := m.pods[message.UID]
		if !ok {
			m.answer(r.reply, fmt.Errorf("workload %q is not known here, its namespace is needed", message.UID))
			return
		}
		p.session = r.session
		m.answer(r.reply, nil)
	case *zds.Del:
		if p, ok := m.pods[message.UID]; ok {
			m.remove(p, "the pod left")
		}
		m.answer(r.reply, nil)
	case *zds.SnapshotSent:
		for _, p := range m.pods {
			if p.session != r.session {
				m.remove(p, "the pod is not on the node agent's list")
			}
		}
		m.listed()
		m.answer(r.reply, nil)
	}
}

func (m *manager) add(ctx context.Context, add *zds.Add, r request) {
	if old, ok := m.pods[add.UID]; ok {
		if old.NS.ID() == add.NS.ID() && old.Info == add.Info {
			add.NS.Close()
			old.session = r.session
			if old.proxy != nil {
				m.answer(r.reply, nil)
				return
			}
			old.waiting = append(old.waiting, r.reply)
			if !old.starting {
				m.start(ctx, old)
			}
			return
		}
		m.remove(old, "the pod came with another namespace or name")
	}
	p := &pod{
		Pod: Pod{UID: add.UID, Info: add.Info, NS: add.NS}, session: r.session,
		waiting: []chan error{r.reply}, ready: m.client.cfg.Readiness.Pending(pendingName(add.Info)),
	}
	m.pods[add.UID] = p
	m.client.metrics.pending.Inc()
	m.start(ctx, p)
}

// start runs Config.Start for p on a goroutine of its own.
func (m *manager) start(ctx context.Context, p *pod) {
	if p.retry != nil {
		p.retry.Stop()
		p.retry = nil
	}
	p.starting = true
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not started within %v", startTimeout))
	ctx, p.stop = context.WithCancelCause(ctx)
	patient := m.draining[p.NS.ID()] > 0
	m.wg.Go(func() {
		defer cancel()
		proxy, err := m.client.cfg.Start(ctx, p.Pod)
		for patient && err != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(portWait):
				proxy, err = m.client.cfg.Start(ctx, p.Pod)
			}
		}
		m.started <- startResult{pod: p, proxy: proxy, err: err}
	})
}

func (m *manager) finish(ctx context.Context, res startResult, retries chan *pod) {
	p := res.pod
	p.starting = false
	p.stop(nil)
	fields := podFields(p.Pod)
	result := res.err
	switch {
	case res.err == nil:
		m.client.metrics.started.Inc()
		p.proxy, p.err = res.proxy, nil
		if p.gone {
			result = errGone
			m.drain(p, res.proxy)
			break
		}
		m.client.metrics.pending.Dec()
		m.client.metrics.active.Inc()
		p.ready()
		m.client.log.Info("workload enrolled", fields...)
	case p.gone:
		result = errGone
		p.NS.Close()
	default:
		p.err = res.err
		m.client.log.Warn("workload's proxy did not start; its connections are refused until it does",
			append(fields, zap.Error(res.err), zap.Duration("retry_in", retryInterval))...)
		p.retry = time.AfterFunc(retryInterval, func() {
			select {
			case retries <- p:
			case <-ctx.Done():
			}
		})
	}
	for _, w := range p.waiting {
		m.answer(w, result)
	}
	p.waiting = nil
}

// remove takes p out of the enrolled pods and lets its proxy drain.
func (m *manager) remove(p *pod, why string) {
	delete(m.pods, p.UID)
	if p.retry != nil {
		p.retry.Stop()
	}
	m.client.log.Info("workload removed", append(podFields(p.Pod), zap.String("reason", why))...)
	if p.proxy != nil {
		m.client.metrics.active.Dec()
	} else {
		m.client.metrics.pending.Dec()
		p.ready()
	}
	switch {
	case p.starting:
		p.gone = true
		p.stop(errGone)
	case p.proxy != nil:
		m.drain(p, p.proxy)
	default:
		p.NS.Close()
	}
}

func (m *manager) drain(p *pod, proxy Proxy) {
	m.draining[p.NS.ID()]++
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), m.client.cfg.DrainDeadline)
		defer cancel()
		proxy.Drain(ctx)
		p.NS.Close()
		m.client.metrics.stopped.Inc()
		m.drained <- p.NS.ID()
	})
}

func (m *manager) forget(id netns.ID) {
	if m.draining[id]--; m.draining[id] == 0 {
		delete(m.draining, id)
	}
}

// publish makes the list for Client.Workloads and sends the answers.
func (m *manager) publish() {
	list := make([]WorkloadState, 0, len(m.pods))
	for _, p := range m.pods {
		s := WorkloadState{UID: p.UID, Info: p.Info, Up: p.proxy != nil}
		if p.err != nil {
			s.Error = p.err.Error()
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b WorkloadState) int { return strings.Compare(a.UID, b.UID) })
	m.client.state.Store(&list)
	for _, a := range m.answers {
		a.to <- a.err
	}
	m.answers = nil
}

// answer queues the one answer that a request's channel has room for.
func (m *manager) answer(to chan error, err error) { m.answers = append(m.answers, answer{to, err}) }

func podFields(p Pod) []zap.Field {
	return []zap.Field{
		zap.String("uid", p.UID), zap.String("workload", p.Info.Name), zap.String("namespace", p.Info.Namespace),
		zap.String("serviceAccount", p.Info.ServiceAccount), zap.Stringer("netns", p.NS.ID()),
	}
}
