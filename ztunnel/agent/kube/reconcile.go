package kube

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// later asks for another look after a pause that grows.
const later time.Duration = -1

// reconcile brings one pod to where it should be, and says when to look again.
func (c *Controller) reconcile(ctx context.Context, uid string) (again time.Duration, err error) {
	pod := c.caches.pod(uid)
	status, known := c.cfg.Pods.Pod(uid)
	switch {
	case pod == nil && !known:
		c.forget(uid)
		return 0, nil
	case pod == nil:
		return c.missing(ctx, status)
	case membership.Ended(pod):
		return c.gone(ctx, uid)
	}
	labels, ok := c.caches.labels(pod.Namespace)
	if !ok && membership.NeedsNamespace(pod, c.cfg.Exclude) {
		if pod.DeletionTimestamp != nil {
			return 0, nil // with its namespace
		}
		return 0, fmt.Errorf("pod %s/%s: its namespace is not in the cache yet", pod.Namespace, pod.Name)
	}
	if membership.Decide(pod, labels, c.cfg.Exclude).Member {
		return c.join(ctx, pod, status, known)
	}
	return c.leave(ctx, pod, status, known)
}

// missing is a pod that is enrolled and not in the cache: gone, or so new that
// the cache does not have it.
func (c *Controller) missing(ctx context.Context, status enrol.Status) (time.Duration, error) {
	live, err := c.livePod(ctx, status.Namespace, status.Name)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return 0, fmt.Errorf("is pod %s/%s still there: %w", status.Namespace, status.Name, err)
	case string(live.UID) == status.UID && live.Spec.NodeName == c.cfg.Node:
		return later, nil
	}
	return c.gone(ctx, status.UID)
}

// gone takes out what was deleted or has ended, once none of its processes is
// left: the API's object goes first where a pod is deleted by force or another
// than the kubelet says that it ended, and what still runs must not talk past the
// mesh. The runtime's DEL releases it without that (Delete).
func (c *Controller) gone(ctx context.Context, uid string) (again time.Duration, err error) {
	if status, known := c.cfg.Pods.Pod(uid); known {
		if !c.replaced(status) {
			inhabited, err := c.cfg.Finder.Inhabited(status.NetNS)
			if err != nil {
				return 0, err
			}
			if inhabited {
				c.log.Debug("pod is gone from the API server, its processes are not", zap.String("uid", uid),
					zap.String("workload", status.Name), zap.String("namespace", status.Namespace))
				return later, nil
			}
		}
		if err := c.cfg.Pods.Gone(ctx, uid); err != nil {
			return 0, err
		}
	}
	c.forget(uid)
	return 0, nil
}

// replaced tells whether another pod has the namespace by now: the API's image of
// a static pod gets a new UID while its containers go on.
func (c *Controller) replaced(status enrol.Status) bool {
	for _, s := range c.cfg.Pods.Pods() {
		if s.UID != status.UID && s.NetNS == status.NetNS && s.State == enrol.Enrolled {
			return true
		}
	}
	return false
}

func (c *Controller) forget(uid string) {
	c.mu.Lock()
	delete(c.leaving, uid)
	delete(c.announced, uid)
	c.mu.Unlock()
	if err := c.cfg.Probes.Delete(uid); err != nil {
		c.log.Warn("the address of a pod that is gone stays among the probes'", zap.String("uid", uid), zap.Error(err))
	}
}

// join enrols a running pod, when the plugin has not done it before, and keeps
// its annotation.
func (c *Controller) join(ctx context.Context, pod *corev1.Pod, status enrol.Status, known bool) (time.Duration, error) {
	uid := string(pod.UID)
	c.mu.Lock()
	delete(c.leaving, uid)
	c.mu.Unlock()
	written := pod.Annotations[membership.Redirection]
	if !known {
		switch {
		case len(podIPs(pod)) == 0:
			return 0, nil // the plugin's business until it has an address
		case pod.DeletionTimestamp != nil && written == "":
			return 0, nil // it ends anyway
		}
	}
	if len(podIPs(pod)) > 0 {
		c.setProbes(pod)
	}
	if !known || !holds(status) {
		box, found, err := c.scan.find(membership.RuntimeUID(pod), c.runtimeUIDs())
		if err != nil {
			return 0, err
		}
		if !found {
			c.log.Debug("no process of the pod is there", podFields(pod)...)
			return later, nil
		}
		if err := c.enrolRunning(ctx, pod, box.Path, written); err != nil {
			c.log.Warn("running pod has not joined the mesh yet; the agent goes on trying", append(podFields(pod), zap.Error(err))...)
		}
		if status, known = c.cfg.Pods.Pod(uid); !known {
			return later, nil
		}
		if status.NetNS != box.ID {
			return later, nil // the process ended between the two looks
		}
	}
	want := written
	switch {
	case status.State == enrol.Enrolled:
		want = membership.Enabled
	case written == "" && status.Captured:
		want = membership.Pending
	}
	if want != written {
		if rest := c.restOfPause(uid, want); rest > 0 {
			return rest, nil
		}
		if err := c.annotate(ctx, pod, want); err != nil {
			return 0, err
		}
		c.mu.Lock()
		c.announced[uid] = announcement{want, time.Now()}
		c.mu.Unlock()
	}
	if status.State != enrol.Enrolled {
		return later, nil
	}
	return 0, nil
}

// restOfPause is how long a value that was written a moment ago is not written
// again: whoever takes the annotation away in a loop must not make us spend all
// our calls on it, and every proxy hear of each.
func (c *Controller) restOfPause(uid, value string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.announced[uid]
	if last.value != value {
		return 0
	}
	return time.Until(last.at.Add(rewritePause))
}

func (c *Controller) enrolRunning(ctx context.Context, pod *corev1.Pod, path, written string) error {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	p := enrolPod(pod, path)
	// Who was captured before must not be let out while a proxy is not there; who
	// never was keeps its connections until one is.
	p.Running = written == ""
	return c.cfg.Pods.Enrol(ctx, p)
}

// leave releases a running pod whose label went: the annotation first, and the
// pod when its peers had the time to hear of it.
func (c *Controller) leave(ctx context.Context, pod *corev1.Pod, status enrol.Status, known bool) (time.Duration, error) {
	uid := string(pod.UID)
	_, annotated := pod.Annotations[membership.Redirection]
	if !known {
		c.forget(uid)
		if annotated {
			return 0, c.annotate(ctx, pod, "")
		}
		return 0, nil
	}
	c.mu.Lock()
	since, begun := c.leaving[uid]
	c.mu.Unlock()
	if !begun {
		// The plugin may have let the pod in by what the cache does not know yet.
		d, live, err := c.decideLive(ctx, pod)
		switch {
		case err != nil:
			return 0, err
		case d.Member:
			return later, nil
		}
		since = time.Now()
		if _, annotated = live.Annotations[membership.Redirection]; annotated {
			if err := c.annotate(ctx, pod, ""); err != nil {
				return 0, err
			}
		} else {
			since = since.Add(-c.cfg.Settle) // nobody was told that it is in
		}
		c.mu.Lock()
		c.leaving[uid] = since
		c.mu.Unlock()
		c.log.Info("pod leaves the mesh", append(podFields(pod), zap.String("reason", d.Reason))...)
	}
	if rest := time.Until(since.Add(c.cfg.Settle)); rest > 0 {
		return rest, nil
	}
	if err := c.cfg.Pods.Remove(ctx, uid); err != nil {
		return 0, err
	}
	c.forget(uid)
	return 0, nil
}

// decideLive asks the API server.
func (c *Controller) decideLive(ctx context.Context, pod *corev1.Pod) (membership.Decision, *corev1.Pod, error) {
	live, err := c.livePod(ctx, pod.Namespace, pod.Name)
	if err != nil {
		return membership.Decision{}, nil, err
	}
	if live.UID != pod.UID {
		return membership.Decision{}, nil, fmt.Errorf("pod %s/%s was replaced", pod.Namespace, pod.Name)
	}
	if !membership.NeedsNamespace(live, c.cfg.Exclude) {
		return membership.Decide(live, nil, c.cfg.Exclude), live, nil
	}
	labels, err := c.liveLabels(ctx, pod.Namespace)
	return membership.Decide(live, labels, c.cfg.Exclude), live, err
}

func (c *Controller) livePod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.cfg.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c *Controller) liveLabels(ctx context.Context, namespace string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ns, err := c.cfg.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return ns.Labels, nil
}

func (c *Controller) setProbes(pod *corev1.Pod) {
	if err := c.cfg.Probes.Set(string(pod.UID), podIPs(pod)); err != nil {
		c.log.Error("kubelet's probes of the pod may fail", append(podFields(pod), zap.Error(err))...)
	}
}

// runtimeUIDs are those of all pods of the node, also of such that never belong
// to the mesh: Finder tells their processes apart from those of others.
func (c *Controller) runtimeUIDs() []string {
	pods := c.caches.allPods()
	uids := make([]string, 0, len(pods)+1)
	for _, p := range pods {
		uids = append(uids, membership.RuntimeUID(p))
	}
	return uids
}

// holds tells whether the pod's path still leads to the namespace that was
// enrolled.
func holds(s enrol.Status) bool {
	ns, err := netns.Open(s.NetnsPath)
	if err != nil {
		return false
	}
	defer ns.Close()
	return ns.ID() == s.NetNS
}

func enrolPod(pod *corev1.Pod, path string) enrol.Pod {
	return enrol.Pod{
		UID: string(pod.UID), Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.Spec.ServiceAccountName, NetnsPath: path,
	}
}

// podIPs are the pod's addresses, as far as they are any.
func podIPs(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func podFields(pod *corev1.Pod) []zap.Field {
	return []zap.Field{zap.String("uid", string(pod.UID)), zap.String("workload", pod.Name), zap.String("namespace", pod.Namespace)}
}
