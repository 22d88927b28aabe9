package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/meshctl/local/plan"
	"github.com/tulle-mesh/tulle/meshctl/local/vip"
)

// syncRetry is when what could not be written is tried again.
const syncRetry = time.Second

// resolvConf sends questions about names that no hosts file has to a place
// where nobody listens, so that they fail at once instead of after a timeout.
const resolvConf = "# Written by meshctl local: all names are in /etc/hosts.\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

// wakeSync tells that something changed which others must learn of: the control
// plane, the pods' hosts files, the nodes' service rules.
func (s *Supervisor) wakeSync() {
	s.syncWanted.Add(1)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Supervisor) syncLoop(ctx context.Context) {
	w := &writer{s: s, files: map[string][]byte{}, rules: map[string][]vip.Forward{}}
	for {
		var retry <-chan time.Time
		wanted := s.syncWanted.Load()
		if err := w.write(); err != nil {
			s.log.Error("cannot pass on the state of the mesh", zap.Error(err))
			retry = time.After(syncRetry)
		} else {
			s.syncWritten.Store(wanted)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-retry:
		}
	}
}

// writer remembers what it wrote, so that only what changed is written again.
type writer struct {
	s     *Supervisor
	files map[string][]byte
	rules map[string][]vip.Forward
}

func (w *writer) write() error {
	s := w.s
	s.mu.Lock()
	p, stopping := s.plan, s.stopping
	states := map[plan.PodKey]plan.PodState{}
	for key, pod := range s.pods {
		states[key] = pod.state()
	}
	s.mu.Unlock()
	if p == nil || stopping {
		return nil
	}
	ready := func(key plan.PodKey) bool { return states[key].Ready }
	return errors.Join(
		w.config(p, func(key plan.PodKey) plan.PodState { return states[key] }),
		w.hosts(p, ready),
		w.services(p, ready),
	)
}

// config renders the objects for the control plane, one file each.
func (w *writer) config(p *plan.Plan, state func(plan.PodKey) plan.PodState) error {
	want, err := p.Render(state)
	if err != nil {
		return err
	}
	var errs []error
	for name := range w.files {
		if _, keep := want[name]; !keep {
			if err := os.Remove(w.s.dir.Config() + "/" + name); err != nil && !os.IsNotExist(err) {
				errs = append(errs, err)
				continue
			}
			delete(w.files, name)
			w.s.configWritten.Store(time.Now().UnixNano())
		}
	}
	for name, data := range want {
		if bytes.Equal(w.files[name], data) {
			continue
		}
		if err := writeAtomic(w.s.dir.Config()+"/"+name, data, 0o600); err != nil {
			errs = append(errs, err)
			continue
		}
		w.files[name] = data
		w.s.configWritten.Store(time.Now().UnixNano())
	}
	return errors.Join(errs...)
}

// hosts writes the pods' hosts files. They are written in place, because each
// pod has the file itself mounted: old and new content never shrink below what
// a reader may be in the middle of until the new content is there.
func (w *writer) hosts(p *plan.Plan, ready func(plan.PodKey) bool) error {
	var errs []error
	for _, pod := range p.Pods {
		if err := updateInPlace(w.s.hostsFile(pod.PodKey), p.Hosts(pod.Namespace, pod, ready)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func updateInPlace(path, content string) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == content {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	padded := content
	if len(old) > len(content) {
		padded += strings.Repeat("\n", len(old)-len(content))
	}
	if _, err := f.WriteAt([]byte(padded), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}

func (s *Supervisor) hostsFile(key plan.PodKey) string {
	return s.dir.Pods(key.Namespace + "_" + key.Name + ".hosts")
}

// services makes every node's service rules.
func (w *writer) services(p *plan.Plan, ready func(plan.PodKey) bool) error {
	var forwards []vip.Forward
	for _, f := range p.Forwards(ready) {
		forwards = append(forwards, vip.Forward{VIP: f.VIP, UDP: f.UDP, Backends: f.Backends})
	}
	same := func(a, b vip.Forward) bool {
		return a.VIP == b.VIP && a.UDP == b.UDP && slices.Equal(a.Backends, b.Backends)
	}
	var errs []error
	for _, n := range w.s.nodes {
		if old, done := w.rules[n.Name]; done && slices.EqualFunc(old, forwards, same) {
			continue
		}
		err := vip.Apply(n.net.NS, vip.Config{Forwards: forwards, Gateway4: n.Gateway4, Gateway6: n.Gateway6})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w.rules[n.Name] = forwards
	}
	return errors.Join(errs...)
}
