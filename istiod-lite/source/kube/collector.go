package kube

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// collector keeps the objects of one kind in the Source's store. It is what its
// reflector writes to.
type collector struct {
	source *Source
	kind   *kind
	health health
	// absent says that the cluster does not know the kind.
	absent atomic.Bool
}

func newCollector(s *Source, k *kind) *collector {
	return &collector{source: s, kind: k}
}

// settled reports whether all objects of the kind that there were at the start
// have been read.
func (c *collector) settled() bool { return c.health.isSynced() || c.absent.Load() }

func (c *collector) run(ctx context.Context) {
	l := lister{c.kind.list, c.kind.watch}
	if c.kind.crd == "" {
		c.source.follow(ctx, c.kind.name, l, c.kind.expected, c, &c.health, func(error) bool { return false })
		return
	}
	for ctx.Err() == nil {
		defined, changed := c.source.definitions.state(c.kind.crd)
		if defined == unknown {
			await(ctx, changed)
			continue
		}
		if defined == none {
			c.leave()
			await(ctx, changed)
			continue
		}
		// Until the definition goes, or makes room for another of its name.
		within, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.source.follow(within, c.kind.name, l, c.kind.expected, c, &c.health, func(err error) bool {
				c.missing(within, err)
				return false
			})
		}()
		await(ctx, changed)
		cancel()
		<-done
	}
}

// missing hears that the API server does not serve the kind although it is
// defined: for a moment after its definition or its own start, or for good because it
// is defined in other versions only. See guard for whether the first state waits.
func (c *collector) missing(ctx context.Context, err error) {
	if !apierrors.IsNotFound(err) || c.settled() {
		return
	}
	switch c.kind.guards {
	case secures:
		return
	case narrows:
		served, err := c.source.definitions.serves(ctx, c.kind.crd, c.kind.version)
		if err != nil || served {
			return // tried again
		}
		c.source.log.Warn("kind is defined, but not in the version that is read: its objects have no effect",
			zap.String("kind", c.kind.name), zap.String("definition", c.kind.crd), zap.String("version", c.kind.version))
	}
	c.absent.Store(true)
	c.source.tell(nil, false)
}

// leave drops what there was of a kind that the cluster no longer knows.
func (c *collector) leave() {
	c.health.succeed()
	c.health.setSynced(false)
	c.absent.Store(true)
	c.source.replace(c.kind, nil, nil)
}

func await(ctx context.Context, c <-chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// Transformer has the reflector trim objects while it lists. Custom kinds keep
// their form there, since what is wrong with one is found with the trimming.
func (c *collector) Transformer() cache.TransformFunc {
	if c.kind.crd != "" {
		return nil
	}
	return func(obj any) (any, error) {
		o, ok := obj.(runtime.Object)
		if !ok {
			return obj, nil // a tombstone
		}
		trimmed, _ := c.kind.trim(o)
		if trimmed == nil {
			return obj, nil // left out when it is read: a reflector needs an object
		}
		return trimmed, nil
	}
}

func (c *collector) Add(obj any) error    { return c.put("add", obj) }
func (c *collector) Update(obj any) error { return c.put("update", obj) }

func (c *collector) put(event string, obj any) error {
	key, trimmed, problems, err := c.read(obj)
	if err != nil {
		return err
	}
	c.source.metrics.event(c.kind, event)
	c.source.apply(c.kind, key, trimmed, problems)
	return nil
}

func (c *collector) Delete(obj any) error {
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T is no object", obj)
	}
	c.source.metrics.event(c.kind, "delete")
	c.source.apply(c.kind, c.key(o), nil, nil)
	return nil
}

// Replace takes a complete list.
func (c *collector) Replace(list []any, _ string) error {
	objects := make([]metav1.Object, 0, len(list))
	problems := map[source.Key][]source.Problem{}
	for _, obj := range list {
		key, trimmed, wrong, err := c.read(obj)
		if err != nil {
			return err
		}
		if trimmed != nil {
			objects = append(objects, trimmed)
		}
		if len(wrong) > 0 {
			problems[key] = wrong
		}
	}
	c.health.setSynced(true)
	c.absent.Store(false)
	c.source.replace(c.kind, objects, problems)
	return nil
}

// Resync does nothing: what is known does not age.
func (c *collector) Resync() error { return nil }

func (c *collector) read(obj any) (source.Key, metav1.Object, []source.Problem, error) {
	o, ok := obj.(metav1.Object)
	r, isRuntime := obj.(runtime.Object)
	if !ok || !isRuntime {
		return source.Key{}, nil, nil, fmt.Errorf("%T is no object", obj)
	}
	trimmed, problems := c.kind.trim(r)
	return c.key(o), trimmed, problems, nil
}

func (c *collector) key(o metav1.Object) source.Key {
	return source.Key{Kind: c.kind.name, Name: source.Name{Namespace: o.GetNamespace(), Name: o.GetName()}}
}
