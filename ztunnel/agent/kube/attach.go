package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// Add is the plugin's question about a new pod. It returns when the pod is none
// of the mesh or ztunnel has acknowledged it. After an error the pod must not
// start; it is captured as far as that could be done, until Delete.
func (c *Controller) Add(ctx context.Context, q cni.Request) (cni.Answer, error) {
	answer, err := c.add(ctx, q)
	result := "outside"
	switch {
	case err != nil:
		result = "failed"
		c.log.Warn("new pod cannot start yet", append(requestFields(q), zap.Error(err))...)
	case answer.Enrolled:
		result = "enrolled"
	}
	c.metrics.attachments.WithLabelValues(result).Inc()
	return answer, err
}

func (c *Controller) add(ctx context.Context, q cni.Request) (cni.Answer, error) {
	if c.releasing.Load() {
		return cni.Answer{Reason: "the mesh is being uninstalled"}, nil
	}
	if q.Netns == "" {
		return cni.Answer{}, fmt.Errorf("pod %s/%s: the runtime names no network namespace", q.Namespace, q.Name)
	}
	pod, err := c.podOf(ctx, q)
	if err != nil {
		return cni.Answer{}, err
	}
	d, err := c.decideNew(ctx, pod)
	if err != nil {
		return cni.Answer{}, err
	}
	if !d.Member {
		c.log.Debug("new pod is none of the mesh", append(podFields(pod), zap.String("reason", d.Reason))...)
		return cni.Answer{Reason: d.Reason}, nil
	}
	uid := string(pod.UID)
	if len(q.Addresses) > 0 {
		if err := c.cfg.Probes.Set(uid, q.Addresses); err != nil {
			return cni.Answer{}, err
		}
	}
	err = c.cfg.Pods.Enrol(ctx, enrolPod(pod, c.nodePath(q.Netns)))
	c.queue.Add(uid) // for the annotation
	if err != nil {
		return cni.Answer{}, err
	}
	return cni.Answer{Enrolled: true, Reason: d.Reason}, nil
}

// Check tells whether a pod is in the mesh as it should be.
func (c *Controller) Check(ctx context.Context, q cni.Request) (cni.Answer, error) {
	pod, err := c.podOf(ctx, q)
	if err != nil {
		return cni.Answer{}, err
	}
	d, err := c.decideNew(ctx, pod)
	if err != nil || !d.Member {
		return cni.Answer{Reason: d.Reason}, err
	}
	status, known := c.cfg.Pods.Pod(string(pod.UID))
	switch {
	case !known:
		return cni.Answer{}, fmt.Errorf("pod %s/%s belongs to the mesh (%s) and is not enrolled", q.Namespace, q.Name, d.Reason)
	case status.State != enrol.Enrolled:
		return cni.Answer{}, fmt.Errorf("pod %s/%s: %s", q.Namespace, q.Name, status.Reason)
	}
	return cni.Answer{Enrolled: true, Reason: d.Reason}, nil
}

// Delete is the plugin's word that a pod's namespace goes. A pod that has been
// given another one since then stays.
func (c *Controller) Delete(ctx context.Context, q cni.Request) (cni.Answer, error) {
	for _, s := range c.cfg.Pods.Pods() {
		if s.Namespace != q.Namespace || s.Name != q.Name || !c.means(q, s) {
			continue
		}
		if err := c.cfg.Pods.Gone(ctx, s.UID); err != nil {
			return cni.Answer{}, err
		}
		c.queue.Add(s.UID) // forgets it, or finds it again
	}
	return cni.Answer{Reason: "released"}, nil
}

// means tells whether the namespace that goes is the one that is enrolled.
func (c *Controller) means(q cni.Request, s enrol.Status) bool {
	if q.Netns != "" {
		path := c.nodePath(q.Netns)
		if ns, err := netns.Open(path); err == nil {
			defer ns.Close()
			return ns.ID() == s.NetNS
		}
		if path == s.NetnsPath {
			return true
		}
	}
	return !holds(s)
}

// podOf finds the pod that the runtime means; the cache may not have it yet.
func (c *Controller) podOf(ctx context.Context, q cni.Request) (*corev1.Pod, error) {
	matches := func(p *corev1.Pod) bool { return q.UID == "" || membership.RuntimeUID(p) == q.UID }
	if p := c.caches.podNamed(q.Namespace, q.Name); p != nil && q.UID != "" && matches(p) {
		return p, nil
	}
	p, err := c.livePod(ctx, q.Namespace, q.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("the API server knows no pod %s/%s (static pods are known a moment after their start)", q.Namespace, q.Name)
	case err != nil:
		return nil, fmt.Errorf("whether pod %s/%s belongs to the mesh is not known: %w", q.Namespace, q.Name, err)
	case !matches(p):
		return nil, fmt.Errorf("pod %s/%s has the UID %s at the API server and %s at the runtime: it was replaced", q.Namespace, q.Name, p.UID, q.UID)
	}
	return p, nil
}

// decideNew decides about a pod that has not started. Before one is let past the
// mesh, the API server is asked about its namespace, because the cache may not
// have heard of a label that was set just before the pod. While the API server
// cannot be reached nobody sets labels, and the cache counts. When it refuses to
// tell the agent, others may set them, and the cache is not kept up to date.
func (c *Controller) decideNew(ctx context.Context, pod *corev1.Pod) (membership.Decision, error) {
	cached, known := c.caches.labels(pod.Namespace)
	d := membership.Decide(pod, cached, c.cfg.Exclude)
	if d.Member || !membership.NeedsNamespace(pod, c.cfg.Exclude) {
		return d, nil
	}
	labels, err := c.liveLabels(ctx, pod.Namespace)
	switch {
	case err == nil:
		return membership.Decide(pod, labels, c.cfg.Exclude), nil
	case known && !refusedByAPI(err):
		c.log.Warn("the API server cannot be asked; the cache decides", append(podFields(pod), zap.Error(err))...)
		return d, nil
	}
	return membership.Decision{}, fmt.Errorf("whether namespace %s belongs to the mesh is not known: %w", pod.Namespace, err)
}

// refusedByAPI tells whether the API server answered, and that the request was at
// fault: no right to it, no such object, too many requests.
func refusedByAPI(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code < http.StatusInternalServerError
}

// nodePath is a path of the node as this process sees it: the agent has its own
// processes under /proc.
func (c *Controller) nodePath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/proc/"); ok {
		return filepath.Join(c.cfg.Proc, rest)
	}
	return path
}

func requestFields(q cni.Request) []zap.Field {
	return []zap.Field{zap.String("uid", q.UID), zap.String("workload", q.Name), zap.String("namespace", q.Namespace)}
}
