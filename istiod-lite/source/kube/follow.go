package kube

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// lister is what a reflector reads a kind through.
type lister struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// follow lists and watches until ctx ends or ended says that the failure will
// last; all of it goes into store.
func (s *Source) follow(ctx context.Context, name string, l lister, expected runtime.Object, store cache.ReflectorStore, h *health, ended func(error) bool) {
	note := func(err error) {
		if err == nil {
			if h.succeed() {
				s.log.Info("API server answers again", zap.String("kind", name))
			}
			return
		}
		if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return // the end, or a version too old to go on from: listed anew at once
		}
		s.metrics.failures.WithLabelValues(name).Inc()
		if h.fail(err) {
			s.log.Warn("API server cannot be read, what is known stays in force", zap.String("kind", name), zap.Error(err))
		}
	}
	// The reflector forgets to stop a watch that it gives up for a list.
	var last watch.Interface
	defer func() {
		if last != nil {
			last.Stop()
		}
	}()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := l.list(ctx, o)
			note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if last != nil {
				last.Stop()
				last = nil
			}
			w, err := l.watch(ctx, o)
			note(err)
			if err == nil {
				last = w
			}
			return w, err
		},
	}
	var silent klog.Logger // what it has to say, note says
	reflector := cache.NewReflectorWithOptions(lw, expected, store, cache.ReflectorOptions{
		Logger: &silent, Name: name, Clock: until{ctx: ctx},
		Backoff: &wait.Backoff{Duration: retryFirst, Factor: 2, Jitter: 0.5, Steps: 10, Cap: retryMost},
	})
	ctx = klog.NewContext(ctx, silent)
	pause := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := reflector.ListAndWatchWithContext(ctx)
		if err != nil && ended(err) {
			return
		}
		var short *cache.VeryShortWatchError
		if err != nil && !errors.As(err, &short) {
			note(err)
		}
		if time.Since(began) > retryReset {
			pause = retryFirst
		}
		sleep(ctx, wait.Jitter(pause, 0.5))
		pause = min(2*pause, retryMost)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until is the real clock, but that waiting on it ends with ctx: a reflector
// waits out its back-off when it is told to stop.
type until struct {
	clock.RealClock
	ctx context.Context
}

// After leaves nothing with the outer context once it has fired: there is one wait
// for each failure, for as long as the process lives.
func (u until) After(d time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	ctx, cancel := context.WithTimeout(u.ctx, d)
	context.AfterFunc(ctx, func() {
		cancel()
		c <- time.Now()
	})
	return c
}
