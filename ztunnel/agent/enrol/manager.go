package enrol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Proxies is told what changed; *proxies.Server is one. It asks the Manager,
// which is its Source, for what to send.
type Proxies interface {
	Send(uid string)
	Delete(ctx context.Context, uid string) error
}

// Config makes a Manager. StateDir and Proxies are required.
type Config struct {
	// StateDir remembers the enrolled pods. It may be lost at a reboot and must
	// not be before.
	StateDir string
	Proxies  Proxies
	// Rules is the variant of rules for every pod.
	Rules redirect.Config
	// Interval is the time between two looks at a pod's rules and old
	// connections. Zero means 5 s.
	Interval time.Duration
	// StrictGrace is how long connections older than the enrolment may go on in
	// strict pods. Zero means 30 s.
	StrictGrace time.Duration
	// Parting is how long, after the capture of a leaving pod has ended, its proxy
	// still takes what was on its way. Zero means 500 ms.
	Parting time.Duration
	// DrainDeadline is how long, after a pod left, its captured connections may go
	// on. The proxy has a deadline of its own, which should not be longer. Zero
	// means 5 min.
	DrainDeadline time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// Manager keeps the pods. It is safe for concurrent use.
type Manager struct {
	cfg     Config
	log     *zap.Logger
	store   *store
	metrics *metrics
	ops     slots

	mu   sync.Mutex
	pods map[string]*entry
	// leaving are pods that were taken out and whose rules are not removed yet.
	leaving   map[string]*entry
	connected bool
}

// entry is one pod. Its fields are guarded by Manager.mu; I/O on the pod happens
// in the pod's slot of Manager.ops.
type entry struct {
	record
	// ns is nil while the namespace cannot be opened, after a restart.
	ns *netns.NS
	// captured: the rules are in force, as far as we know.
	captured   bool
	rulesError string
	acked      bool
	refusal    string
	// changed is closed and made anew when the state changes.
	changed chan struct{}

	older       older
	strictSince time.Time
	// told: the proxy was told that the pod left. released is when new connections
	// began to pass it by. Both belong to who has the pod's slot.
	told     bool
	released time.Time
	// compared says until when the rules need no full comparison, as long as
	// their generation stays. It belongs to who has the pod's slot.
	compared struct {
		generation uint32
		until      time.Time
	}
}

// New makes a Manager and locks its state directory. Close ends it; rules stay.
func New(cfg Config) (*Manager, error) {
	if cfg.StateDir == "" || cfg.Proxies == nil {
		return nil, errors.New("enrol: Config needs StateDir and Proxies")
	}
	if cfg.Interval == 0 {
		cfg.Interval = tick
	}
	if cfg.StrictGrace == 0 {
		cfg.StrictGrace = StrictGrace
	}
	if cfg.Parting == 0 {
		cfg.Parting = parting
	}
	if cfg.DrainDeadline == 0 {
		cfg.DrainDeadline = drainDeadline
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	st, err := openStore(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, log: cfg.Logger, store: st,
		pods: map[string]*entry{}, leaving: map[string]*entry{},
	}
	m.metrics = newMetrics(cfg.Registerer, m)
	return m, nil
}

// Close lets go of the namespaces and of the state directory, after Run and all
// calls have returned.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range []map[string]*entry{m.pods, m.leaving} {
		for _, e := range all {
			if e.ns != nil {
				e.ns.Close()
			}
		}
	}
	m.pods, m.leaving = map[string]*entry{}, map[string]*entry{}
	return m.store.close()
}

// Enrol takes a pod into the mesh and returns when it is captured and the proxy
// has acknowledged it. Enrolling a pod once more changes nothing; what changed is
// brought into force. When Enrol fails, the Manager goes on trying until Remove;
// meanwhile the pod is captured as far as that could be done and its connections
// are refused, except for a pod that was Running, which stays as it was.
func (m *Manager) Enrol(ctx context.Context, pod Pod) (err error) {
	if err := pod.validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	release, err := m.ops.acquire(ctx, pod.UID)
	if err != nil {
		return err
	}
	e, err := m.admit(pod)
	if err == nil && !m.waitsForProxy(e) {
		err = m.capture(e)
	}
	release() // waiting needs no slot: a Remove may come between
	for captured := false; err == nil && !captured; {
		if err = m.acknowledged(ctx, e, pod); err == nil {
			captured, err = m.join(ctx, e)
		}
	}
	m.metrics.enrolment(err)
	return err
}

// proxyFirst tells that the pod's rules wait for the proxy's ack; the caller
// holds Manager.mu.
func (e *entry) proxyFirst() bool { return e.Running && !e.Joined }

func (m *Manager) waitsForProxy(e *entry) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.proxyFirst()
}

// join captures a running pod that the proxy has acknowledged. captured is false
// when the ack does not count any more.
func (m *Manager) join(ctx context.Context, e *entry) (captured bool, err error) {
	m.mu.Lock()
	captured = e.captured
	m.mu.Unlock()
	if captured {
		return true, nil
	}
	release, err := m.ops.acquire(ctx, e.UID)
	if err != nil {
		return false, err
	}
	defer release()
	return m.joinNow(e)
}

// joinNow is join for who has the pod's slot.
func (m *Manager) joinNow(e *entry) (captured bool, err error) {
	m.mu.Lock()
	ready := m.pods[e.UID] == e && e.acked && m.connected
	next := e.record
	m.mu.Unlock()
	if !ready {
		return false, nil
	}
	if !next.Joined {
		// On disk first: an agent that starts again must not wait for a proxy with
		// rules that may be in force.
		next.Joined, next.Since = true, time.Now()
		if err := m.store.save(next); err != nil {
			return false, err
		}
		m.mu.Lock()
		e.Joined, e.Since = true, next.Since
		m.mu.Unlock()
	}
	return true, m.capture(e)
}

// admit puts the pod on the list, on disk first. The caller has the pod's slot.
func (m *Manager) admit(pod Pod) (*entry, error) {
	ns, err := netns.Open(pod.NetnsPath)
	if err != nil {
		return nil, &InvalidError{Reason: fmt.Sprintf("netnsPath: %v", err)}
	}
	if err := notOurs(ns.ID()); err != nil {
		ns.Close()
		return nil, err
	}
	m.mu.Lock()
	old, known := m.pods[pod.UID]
	leaving := m.leaving[pod.UID]
	count := len(m.pods)
	m.mu.Unlock()
	if known && old.NS == ns.ID() && old.info() == pod.info() && old.ns != nil {
		ns.Close()
		return old, m.update(old, pod)
	}
	if !known && count >= maxPods {
		ns.Close()
		return nil, ErrTooMany
	}
	e := &entry{
		record: record{Pod: pod, NS: ns.ID(), Since: time.Now()}, ns: ns, changed: make(chan struct{}),
	}
	e.strictSince = e.Since
	if known && old.NS == e.NS {
		e.Since = old.Since
		e.Joined = !m.waitsForProxy(old) // captured already
	}
	if err := m.store.save(e.record); err != nil {
		ns.Close()
		return nil, err
	}
	m.mu.Lock()
	m.pods[pod.UID] = e
	delete(m.leaving, pod.UID)
	m.mu.Unlock()
	for _, o := range []*entry{old, leaving} {
		if o == nil || o.ns == nil {
			continue
		}
		if !m.shared(o) {
			// The pod was made anew; nobody will ask for the old namespace.
			if err := redirect.Remove(o.ns); err != nil {
				m.log.Warn("rules of a replaced pod stay", append(fields(o.Pod), zap.Error(err))...)
			}
		}
		o.ns.Close()
	}
	return e, nil
}

// notOurs refuses the agent's own network namespace, the node's: rules there would
// cut the node off.
func notOurs(id netns.ID) error {
	own, err := netns.Current()
	if err != nil {
		return err
	}
	defer own.Close()
	if own.ID() == id {
		return &InvalidError{Reason: "netnsPath leads to the node agent's own network namespace"}
	}
	return nil
}

// update brings what may change without a new start into a known pod.
func (m *Manager) update(e *entry, pod Pod) error {
	pod.Running = pod.Running && e.Running
	if e.Pod == pod { // the slot is ours, so nobody writes it
		return nil
	}
	next := e.record
	next.Pod = pod
	if err := m.store.save(next); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if pod.Strict && !e.Strict {
		e.strictSince = time.Now()
	}
	e.NetnsPath, e.Strict, e.Running = pod.NetnsPath, pod.Strict, pod.Running // all that can differ here
	return nil
}

// capture writes the rules. The caller has the pod's slot.
func (m *Manager) capture(e *entry) error {
	err := redirect.Apply(e.ns, m.cfg.Rules)
	m.mu.Lock()
	first := err == nil && !e.captured
	e.captured = err == nil
	if err != nil {
		e.rulesError = err.Error()
	} else {
		e.rulesError = ""
	}
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", e.Namespace, e.Name, err)
	}
	if first {
		m.log.Info("pod captured", append(fields(e.Pod), zap.Stringer("netns", e.NS))...)
		m.lookForOlder(e, time.Now())
	}
	return nil
}

// acknowledged tells the proxy and waits for its answer.
func (m *Manager) acknowledged(ctx context.Context, e *entry, pod Pod) error {
	m.mu.Lock()
	if e.acked && m.connected {
		m.mu.Unlock()
		return nil
	}
	e.refusal = ""
	m.mu.Unlock()
	m.cfg.Proxies.Send(pod.UID)
	for {
		m.mu.Lock()
		changed, acked, refusal, connected := e.changed, e.acked && m.connected, e.refusal, m.connected
		without := e.without()
		gone := m.pods[pod.UID] != e
		m.mu.Unlock()
		switch {
		case gone:
			return fmt.Errorf("pod %s/%s was removed or replaced meanwhile", pod.Namespace, pod.Name)
		case acked:
			return nil
		case refusal != "":
			return fmt.Errorf("pod %s/%s: ztunnel refused: %s", pod.Namespace, pod.Name, refusal)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if !connected {
				return fmt.Errorf("%w; %s until one is", ErrNoProxy, without)
			}
			return fmt.Errorf("pod %s/%s: ztunnel has not acknowledged it: %w", pod.Namespace, pod.Name, context.Cause(ctx))
		}
	}
}

// change wakes who waits for e; the caller holds Manager.mu.
func (e *entry) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Pods lists all pods, sorted by namespace and name.
func (m *Manager) Pods() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Status, 0, len(m.pods))
	now := time.Now()
	for _, e := range m.pods {
		list = append(list, m.status(e, now))
	}
	slices.SortFunc(list, func(a, b Status) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+a.UID, b.Namespace+"/"+b.Name+"/"+b.UID)
	})
	return list
}

// Leaving lists the pods that were taken out and of which something is left:
// their captured connections go on. Gone ends that.
func (m *Manager) Leaving() []Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Pod, 0, len(m.leaving))
	for _, e := range m.leaving {
		list = append(list, e.Pod)
	}
	return list
}

// Pod returns one pod's status.
func (m *Manager) Pod(uid string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.pods[uid]
	if !ok {
		return Status{}, false
	}
	return m.status(e, time.Now()), true
}

func (m *Manager) status(e *entry, now time.Time) Status {
	s := Status{Pod: e.Pod, Captured: e.captured, NetNS: e.NS, Since: e.Since, UDP: udpStatus}
	s.State, s.Reason = m.state(e)
	s.OlderConnections, s.OlderCount = e.older.list(int(now.Sub(e.Since).Seconds()))
	return s
}

func (m *Manager) state(e *entry) (State, string) {
	switch {
	case e.rulesError != "":
		return Failed, e.rulesError
	case e.refusal != "":
		return Failed, "ztunnel refused: " + e.refusal
	case !m.connected:
		return Pending, ErrNoProxy.Error() + "; " + e.without() + " until one is"
	case !e.acked:
		return Pending, "ztunnel has not acknowledged the pod yet; " + e.without() + " until it does"
	case !e.captured && e.ns != nil:
		return Pending, "the pod is about to be captured"
	}
	return Enrolled, ""
}

// without says what happens to the pod's connections without a proxy; the caller
// holds Manager.mu.
func (e *entry) without() string {
	if e.proxyFirst() {
		return "the pod's connections go past the mesh"
	}
	return "the pod's connections are refused"
}

func fields(p Pod) []zap.Field {
	return []zap.Field{
		zap.String("uid", p.UID), zap.String("workload", p.Name), zap.String("namespace", p.Namespace),
		zap.String("serviceAccount", p.ServiceAccount),
	}
}

// reopen gets the namespace of a pod that is known from before a restart.
// os.ErrNotExist says that it is not there any more.
func reopen(r record) (*netns.NS, error) {
	ns, err := netns.Open(r.NetnsPath)
	if err != nil {
		return nil, err
	}
	if ns.ID() != r.NS {
		ns.Close()
		return nil, fmt.Errorf("%s leads to %v and not to the pod's %v any more: %w", r.NetnsPath, ns.ID(), r.NS, os.ErrNotExist)
	}
	return ns, nil
}
