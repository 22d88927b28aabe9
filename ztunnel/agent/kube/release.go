package kube

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
)

// Release takes all pods of the node out of the mesh, because the agent is
// uninstalled. It is called after Run has returned; the plugin is out of the
// chain by then. What the API server refuses, because the agent's rights were
// deleted with it, or does not answer, does not keep pods captured; nor does the
// end of ctx, which only cuts the waiting short.
func (c *Controller) Release(ctx context.Context) {
	c.releasing.Store(true)
	statuses := c.cfg.Pods.Pods()
	pods := map[string]*corev1.Pod{}
	served := false
	for _, s := range statuses {
		pods[s.UID] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: types.UID(s.UID)}}
		served = served || s.State == enrol.Enrolled
	}
	for _, p := range c.caches.allPods() {
		if _, annotated := p.Annotations[membership.Redirection]; annotated {
			pods[string(p.UID)] = p
		}
	}
	// All together, because an API server that is away must not use up the time.
	telling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	each(pods, func(_ string, p *corev1.Pod) {
		if err := c.annotate(telling, p, ""); err != nil {
			c.log.Warn("annotation stays", zap.Error(err))
		}
	})
	if served {
		select {
		case <-time.After(c.cfg.Settle):
		case <-ctx.Done():
		}
	}
	enrolled := map[string]enrol.Status{}
	for _, s := range c.cfg.Pods.Pods() {
		enrolled[s.UID] = s
	}
	each(enrolled, func(uid string, s enrol.Status) {
		if err := c.cfg.Pods.Remove(ctx, uid); err != nil {
			c.log.Error("pod stays captured", zap.String("namespace", s.Namespace), zap.String("workload", s.Name), zap.Error(err))
		}
	})
	if served {
		select {
		case <-time.After(releaseDrain):
		case <-ctx.Done():
		}
	}
	// Those, too, that were leaving before.
	for _, pod := range c.cfg.Pods.Leaving() {
		if _, known := enrolled[pod.UID]; !known {
			enrolled[pod.UID] = enrol.Status{Pod: pod}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	each(enrolled, func(uid string, s enrol.Status) {
		if err := c.cfg.Pods.Gone(last, uid); err != nil {
			c.log.Error("rules of the pod stay", zap.String("namespace", s.Namespace), zap.String("workload", s.Name), zap.Error(err))
		}
	})
	c.log.Info("all pods of the node are released", zap.Int("pods", len(enrolled)))
}

// each runs f for all values, several at once.
func each[T any](values map[string]T, f func(string, T)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, releaseWorkers)
	for key, value := range values {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f(key, value)
		})
	}
	group.Wait()
}
