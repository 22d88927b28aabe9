package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

// settlePeriod is how often apply looks whether everything runs.
const settlePeriod = 50 * time.Millisecond

var errDown = errors.New("the mesh is being taken down")

// apply makes the mesh as the request says and tells about it on the way. It
// returns the number of objects that changed. An error before the first change
// leaves everything as it was.
func (s *Supervisor) apply(ctx context.Context, request control.Apply, progress func(string)) (int, error) {
	if request.Nodes != 0 && request.Nodes != s.settings.Nodes {
		return 0, fmt.Errorf("the mesh has %d nodes and was asked for %d: the number of nodes is fixed while it runs; `meshctl local down` first", s.settings.Nodes, request.Nodes)
	}
	docs := make([]manifest.Document, len(request.Documents))
	for i, d := range request.Documents {
		docs[i] = manifest.Document(d)
	}
	set, err := manifest.Parse(docs)
	if err != nil {
		return 0, err
	}
	changed, err := s.change(set, progress)
	if err != nil || request.WaitSeconds <= 0 {
		return changed, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(request.WaitSeconds*float64(time.Second)))
	defer cancel()
	return changed, s.settle(ctx, progress)
}

// change plans the objects and starts and stops what differs. One at a time
// does; waiting until everything runs is outside, so that the next change, which
// may be the one that mends this, need not wait for it.
func (s *Supervisor) change(set *manifest.Set, progress func(string)) (int, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	prevSet, prev := s.set, s.plan
	s.mu.Unlock()
	nodes := make([]plan.Node, len(s.nodes))
	for i, n := range s.nodes {
		nodes[i] = n.Node
	}
	next, err := plan.Make(set, nodes, prev, newUID)
	if err != nil {
		return 0, err
	}
	if err := s.check(next); err != nil {
		return 0, err
	}
	changes := compare(prevSet, set)
	for _, c := range changes {
		progress(c)
	}
	return len(changes), s.converge(set, next, progress)
}

// check refuses what this supervisor cannot do.
func (s *Supervisor) check(p *plan.Plan) error {
	if !s.settings.Rootless {
		return nil
	}
	var errs []error
	for _, pod := range p.Pods {
		ids := []*corev1.PodSecurityContext{pod.Object.Spec.SecurityContext}
		bad := ids[0] != nil && ids[0].RunAsUser != nil && *ids[0].RunAsUser != 0
		for _, c := range pod.Object.Spec.Containers {
			bad = bad || c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil && *c.SecurityContext.RunAsUser != 0
		}
		if bad {
			errs = append(errs, fmt.Errorf("Pod %v: securityContext.runAsUser: a mesh that was not started by root has one user only; run `meshctl local up` as root or take the field away", pod.PodKey))
		}
	}
	return errors.Join(errs...)
}

// compare lists what differs between two sets, in the words of kubectl.
func compare(prev, next *manifest.Set) []string {
	var list []string
	name := func(o *manifest.Object) string {
		n := strings.ToLower(o.Kind) + "/" + o.Name
		if o.Namespace != "" {
			n += " in " + o.Namespace
		}
		return n
	}
	for _, o := range next.Objects() {
		if o.Place.File == "" {
			continue // the default namespace, which we added
		}
		var old *manifest.Object
		if prev != nil {
			old = prev.Find(o.Kind, o.Namespace, o.Name)
		}
		switch {
		case old == nil || old.Place.File == "":
			list = append(list, name(o)+" created")
		case !bytes.Equal(old.Place.JSON, o.Place.JSON):
			list = append(list, name(o)+" changed")
		}
	}
	if prev != nil {
		for _, o := range prev.Objects() {
			if now := next.Find(o.Kind, o.Namespace, o.Name); o.Place.File != "" && (now == nil || now.Place.File == "") {
				list = append(list, name(o)+" removed")
			}
		}
	}
	return list
}

// converge takes away what is no longer planned, then makes what is new.
func (s *Supervisor) converge(set *manifest.Set, next *plan.Plan, progress func(string)) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return errDown
	}
	var gone []*pod
	for key, p := range s.pods {
		planned := next.Pod(key)
		if planned == nil || planned.UID != p.current().UID {
			gone = append(gone, p)
			delete(s.pods, key)
		}
	}
	s.set, s.plan = set, next
	s.mu.Unlock()
	// The control plane learns of the new pods before their first process runs,
	// and of those that go while they still drain.
	s.wakeSync()

	sort.Slice(gone, func(i, j int) bool { return gone[i].current().String() < gone[j].current().String() })
	var stopping sync.WaitGroup
	for _, p := range gone {
		progress(fmt.Sprintf("stopping pod %v", p.current().PodKey))
		stopping.Go(func() {
			p.stop(true)
			if next.Pod(p.current().PodKey) == nil {
				os.Remove(s.hostsFile(p.current().PodKey))
			}
		})
	}
	stopping.Wait()

	ready := func(plan.PodKey) bool { return false }
	var errs []error
	for _, planned := range next.Pods {
		s.mu.Lock()
		running := s.pods[planned.PodKey]
		s.mu.Unlock()
		if running != nil {
			running.update(planned)
			continue
		}
		if err := updateInPlace(s.hostsFile(planned.PodKey), next.Hosts(planned.Namespace, planned, ready)); err != nil {
			errs = append(errs, err)
			continue
		}
		progress(fmt.Sprintf("starting pod %v on %s", planned.PodKey, planned.Node))
		p, err := s.newPod(planned)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.mu.Lock()
		s.pods[planned.PodKey] = p
		s.mu.Unlock()
	}
	s.wakeSync()
	return errors.Join(errs...)
}

// settle waits until everything runs as planned, and tells what it waits for
// when that changes. At the end it tells of objects that do not do all they say.
func (s *Supervisor) settle(ctx context.Context, progress func(string)) error {
	tick := time.NewTicker(settlePeriod)
	defer tick.Stop()
	told := map[string]bool{}
	begin := time.Now()
	var waits []string
	for {
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			return errDown // not "everything runs" because nothing is left
		}
		before := waits
		var warnings []string
		waits = s.waits()
		if len(waits) == 0 && s.controlPlane != nil {
			var wait string
			var err error
			if wait, warnings, err = s.inForce(ctx); err != nil {
				return err
			}
			if wait != "" {
				waits = append(waits, wait)
			}
			if wait != "" && ctx.Err() != nil && len(before) > 0 {
				waits = before // the question was cut short by the time that is over
			}
		}
		if len(waits) == 0 {
			for _, w := range warnings {
				progress("warning: " + w)
			}
			return nil
		}
		// What is over within a second is not worth a line.
		if time.Since(begin) > time.Second {
			for _, w := range waits {
				if !told[w] {
					told[w] = true
					progress("waiting for " + w)
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not everything runs yet (the mesh stays up; `meshctl local status` shows more):\n  %s", strings.Join(waits, "\n  "))
		}
	}
}

// inForce says what the objects still wait for until every proxy acts on them;
// empty when nothing, and then with what the control plane warns of. The error is
// about objects that it refuses.
func (s *Supervisor) inForce(ctx context.Context) (wait string, warnings []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	written := time.Unix(0, s.configWritten.Load())
	state, err := s.askControlPlane(ctx)
	switch {
	case err != nil:
		return "istiod-lite: " + err.Error(), nil, nil
	case state.read.Before(written) && len(state.problems) > 0 && time.Since(written) > refusalPatience:
		return "", nil, fmt.Errorf("the control plane refuses the new objects; what was in force before stays:\n  %s", strings.Join(state.problems, "\n  "))
	case state.read.Before(written):
		return "istiod-lite: to read the objects", nil, nil
	case state.behind:
		return "istiod-lite: to serve the objects", nil, nil
	case state.ztunnels < len(s.nodes):
		return fmt.Sprintf("istiod-lite: %d of %d ztunnels are connected", state.ztunnels, len(s.nodes)), nil, nil
	case state.unsynced != "":
		return state.unsynced + ": to acknowledge the change", nil, nil
	}
	return "", state.warnings, nil
}

// waits lists what does not run as planned.
func (s *Supervisor) waits() []string {
	var list []string
	if s.syncWritten.Load() < s.syncWanted.Load() {
		list = append(list, "the change to be passed on")
	}
	for _, c := range s.components() {
		if ready, reason, _ := c.state(); !ready {
			list = append(list, fmt.Sprintf("%s: %s", strings.Join(c.log, "/"), reason))
		}
	}
	s.mu.Lock()
	pods := make([]*pod, 0, len(s.pods))
	for _, p := range s.pods {
		pods = append(pods, p)
	}
	s.mu.Unlock()
	sort.Slice(pods, func(i, j int) bool { return pods[i].current().String() < pods[j].current().String() })
	for _, p := range pods {
		if w := p.waiting(); w != "" {
			list = append(list, fmt.Sprintf("pod %v: %s", p.current().PodKey, w))
		}
	}
	return list
}

func (s *Supervisor) components() []*component {
	var list []*component
	if s.controlPlane != nil {
		list = append(list, s.controlPlane)
	}
	for _, n := range s.nodes {
		if n.agent != nil {
			list = append(list, n.agent, n.ztunnel)
		}
	}
	return list
}
