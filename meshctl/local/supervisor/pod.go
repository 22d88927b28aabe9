package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/network"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

// membership is where a pod stands toward the mesh.
type membership string

const (
	meshOut     membership = "out"
	meshPending membership = "pending"
	meshIn      membership = "in"
	meshLeaving membership = "leaving"
)

// pod runs one pod: it enrols it, starts its containers once that is done, and
// follows later changes of its membership without touching them.
type pod struct {
	s    *Supervisor
	node *node
	ns   *netns.NS
	path string // where ns is mounted
	log  *zap.Logger

	wake   chan struct{} // planned changed
	cancel context.CancelFunc
	ending <-chan struct{} // closed when the pod begins to end
	done   chan struct{}

	containers []*container
	// visits are the commands of exec in the pod's network; see enter.
	visits sync.WaitGroup

	// mu guards what follows.
	mu      sync.Mutex
	planned *plan.Pod
	mesh    membership
	told    bool   // the agent may know of the pod
	member  bool   // the agent has enrolled it
	strict  bool   // what the agent was told last
	reason  string // why mesh is pending or leaving
	started time.Time
	removed bool // it goes for good, and shall be released
	closed  bool // nobody enters any more
}

// newPod makes the pod's network and starts to run it.
func (s *Supervisor) newPod(planned *plan.Pod) (*pod, error) {
	n := s.node(planned.Node)
	net, err := n.net.AddPod(network.PodConfig{
		Name: planned.String(), Link: "p" + strings.ReplaceAll(planned.UID, "-", "")[:12],
		IPv4: planned.IPv4, IPv6: planned.IPv6, Gateway4: n.Gateway4, Gateway6: n.Gateway6,
	})
	if err != nil {
		return nil, err
	}
	path, err := pinNamespace(s.dir, planned.UID, net.NS)
	if err != nil {
		net.NS.Close()
		return nil, fmt.Errorf("pod %v: %w", planned.PodKey, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pod{
		s: s, node: n, ns: net.NS, path: path, planned: planned, mesh: meshOut,
		log:  s.log.With(zap.String("pod", planned.String())),
		wake: make(chan struct{}, 1), cancel: cancel, ending: ctx.Done(), done: make(chan struct{}),
	}
	if planned.Enrolled && !s.settings.NoMesh {
		p.mesh, p.reason = meshPending, "to be enrolled"
	}
	for i := range planned.Object.Spec.Containers {
		p.containers = append(p.containers, &container{pod: p, spec: &planned.Object.Spec.Containers[i]})
	}
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p, nil
}

func (p *pod) run(ctx context.Context) {
	// Fail closed: what belongs into the mesh does not start before its ztunnel
	// holds it.
	p.follow(ctx)
	var running sync.WaitGroup
	if ctx.Err() == nil {
		p.mu.Lock()
		p.started = time.Now()
		p.mu.Unlock()
		for _, c := range p.containers {
			running.Go(func() { c.run(ctx) })
		}
		p.s.wakeSync()
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-p.wake:
			p.follow(ctx)
		}
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	running.Wait()
	p.visits.Wait()
	p.close()
}

// enter keeps the pod from being released until leave is called, which the
// caller does soon after ending is closed: whatever is in the pod's network past
// its release speaks in plaintext, with an address that may be another pod's.
func (p *pod) enter() (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("pod %v is being stopped", p.planned.PodKey)
	}
	p.visits.Add(1)
	return p.visits.Done, nil
}

// follow makes the pod's membership what is planned, however long it takes; it
// starts over when the plan changes meanwhile.
func (p *pod) follow(ctx context.Context) {
	if p.s.settings.NoMesh {
		return
	}
	wait := backoff.New(enrolMin, enrolMax)
	var leaving time.Time // since when it is being released
	for ctx.Err() == nil {
		p.mu.Lock()
		planned, mesh, strict, told, running := p.planned, p.mesh, p.strict, p.told, !p.started.IsZero()
		p.mu.Unlock()
		if planned.Enrolled {
			leaving = time.Time{}
		}
		switch {
		case planned.Enrolled && (mesh != meshIn || strict != planned.Strict):
			p.mu.Lock()
			p.mesh, p.reason, p.told = meshPending, "being enrolled", true
			p.mu.Unlock()
		case !planned.Enrolled && told:
			p.setMesh(meshLeaving, "being released")
			if leaving.IsZero() {
				leaving = time.Now()
			}
			if rest := leaveSettle - time.Since(leaving); running && rest > 0 {
				select {
				case <-ctx.Done():
				case <-p.wake:
				case <-time.After(rest):
				}
				continue
			}
		case !planned.Enrolled:
			p.setMesh(meshOut, "")
			return
		default:
			return
		}
		request, cancel := context.WithTimeout(ctx, enrolTimeout)
		var err error
		if planned.Enrolled {
			err = p.node.api.enrol(request, planned.UID, podRequest{
				Name: planned.Name, Namespace: planned.Namespace, ServiceAccount: planned.ServiceAccount,
				NetnsPath: p.path, Strict: planned.Strict, Running: running,
			})
		} else {
			err = p.node.api.release(request, planned.UID)
		}
		cancel()
		if err == nil {
			p.mu.Lock()
			p.mesh, p.reason, p.strict, p.told, p.member = meshOut, "", planned.Strict, planned.Enrolled, planned.Enrolled
			if planned.Enrolled {
				p.mesh = meshIn
			}
			p.mu.Unlock()
			p.s.wakeSync()
			wait.Reset()
			continue // the plan may have changed meanwhile
		}
		p.setMesh(p.membership(), err.Error())
		p.log.Warn("membership not changed yet", zap.Bool("enrol", planned.Enrolled), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(wait.Next()):
		}
	}
}

func (p *pod) setMesh(m membership, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mesh, p.reason = m, reason
}

func (p *pod) membership() membership {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mesh
}

// current is the plan that the pod follows.
func (p *pod) current() *plan.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.planned
}

// update gives the pod a new plan of the same spec.
func (p *pod) update(planned *plan.Pod) {
	p.mu.Lock()
	p.planned = planned
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// stop ends the pod and waits for it. A pod that is removed from a mesh that
// goes on is released by its agent too.
func (p *pod) stop(removed bool) {
	p.mu.Lock()
	p.removed = removed
	p.mu.Unlock()
	p.cancel()
	<-p.done
}

// close releases what the pod held, after its last process has ended.
func (p *pod) close() {
	p.endStrays()
	p.mu.Lock()
	uid, release := p.planned.UID, p.removed && p.told
	p.mu.Unlock()
	if release {
		ctx, cancel := context.WithTimeout(context.Background(), enrolTimeout)
		if err := p.node.api.gone(ctx, uid); err != nil {
			p.log.Warn("the agent did not release the pod", zap.Error(err))
		}
		cancel()
	}
	if err := unpinNamespace(p.s.dir, uid); err != nil {
		p.log.Warn("cannot unmount the pod's network namespace", zap.Error(err))
	}
	p.ns.Close()
}

// grace is how long the pod's containers may take to end.
func (p *pod) grace() time.Duration {
	if s := p.current().Object.Spec.TerminationGracePeriodSeconds; s != nil && *s >= 0 {
		return min(time.Duration(*s)*time.Second, maxGrace)
	}
	return defaultGrace
}

// state sums up what runs.
func (p *pod) state() plan.PodState {
	p.mu.Lock()
	st := plan.PodState{Since: p.started, Outside: !p.member}
	p.mu.Unlock()
	if st.Since.IsZero() {
		return st
	}
	ended, failed := 0, false
	st.Phase, st.Ready = corev1.PodRunning, true
	for _, c := range p.containers {
		c.mu.Lock()
		if c.over {
			ended++
			failed = failed || c.failed
		}
		st.Ready = st.Ready && c.ready && !c.over
		c.mu.Unlock()
	}
	if ended == len(p.containers) {
		st.Phase = corev1.PodSucceeded
		if failed {
			st.Phase = corev1.PodFailed
		}
	}
	return st
}

// waiting says in a few words what the pod still lacks; empty when it is ready
// or has done its work.
func (p *pod) waiting() string {
	p.mu.Lock()
	mesh, reason, planned, started := p.mesh, p.reason, p.planned, p.started
	p.mu.Unlock()
	if mesh == meshPending || mesh == meshLeaving {
		if started.IsZero() {
			return "held until the mesh has it: " + reason
		}
		return reason
	}
	if !p.s.settings.NoMesh && planned.Enrolled != (mesh == meshIn) {
		return "its membership is about to change"
	}
	st := p.state()
	if st.Phase == corev1.PodSucceeded {
		return ""
	}
	var reasons []string
	for _, c := range p.containers {
		c.mu.Lock()
		if why := c.unsteady(); why != "" {
			reasons = append(reasons, why)
		}
		c.mu.Unlock()
	}
	if len(reasons) == 0 && !st.Ready {
		return "starting"
	}
	return strings.Join(reasons, "; ")
}

func (p *pod) status() control.Pod {
	st := p.state()
	p.mu.Lock()
	planned, mesh := p.planned, p.mesh
	p.mu.Unlock()
	out := control.Pod{
		Namespace: planned.Namespace, Name: planned.Name, UID: planned.UID, Node: planned.Node,
		IPs:   []string{planned.IPv4.String(), planned.IPv6.String()},
		Phase: string(st.Phase), Ready: st.Ready, Reason: p.waiting(), Mesh: string(mesh),
	}
	if out.Phase == "" {
		out.Phase = string(corev1.PodPending)
	}
	if mesh == meshIn {
		out.Identity = fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", p.s.settings.TrustDomain, planned.Namespace, planned.ServiceAccount)
	}
	if isWaypoint(planned) {
		out.Waypoint = planned.Object.Labels[manifest.LabelGateway]
	}
	for _, c := range p.containers {
		out.Containers = append(out.Containers, c.status())
	}
	return out
}

// environment is what the pod's containers see.
func (p *pod) environment(extra []corev1.EnvVar) []string {
	env := append(p.s.baseEnv(), "HOSTNAME="+p.current().Hostname())
	if isWaypoint(p.current()) {
		env = append(env, p.s.waypointEnv(p.current())...)
	}
	for _, e := range extra {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = p.field(e.ValueFrom.FieldRef.FieldPath)
		}
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, e.Name+"=") })
		env = append(env, e.Name+"="+value)
	}
	return env
}

// field answers env's fieldRef (the downward API).
func (p *pod) field(path string) string {
	planned := p.current()
	switch path {
	case "metadata.name":
		return planned.Name
	case "metadata.namespace":
		return planned.Namespace
	case "metadata.uid":
		return planned.UID
	case "spec.nodeName":
		return planned.Node
	case "spec.serviceAccountName":
		return planned.ServiceAccount
	case "status.podIP":
		return planned.IPv4.String()
	case "status.podIPs":
		return planned.IPv4.String() + "," + planned.IPv6.String()
	case "status.hostIP":
		return p.node.Lan4.Addr().String()
	}
	return ""
}
