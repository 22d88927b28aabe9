package authority

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

// Run follows the Secrets until ctx ends: it takes over another signing
// certificate, and writes the authority's own Secret again when that is deleted,
// for a replica that started without it would make another root.
func (s *Store) Run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	var stores []cache.Store
	for _, name := range []string{PluggedInSecret, OwnSecret} {
		// The right to watch is given for these two names, which the API server
		// knows a watch to keep to by its field selector.
		factory := informers.NewSharedInformerFactoryWithOptions(s.cfg.Client, 0, informers.WithNamespace(s.cfg.Namespace),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) {
				o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
			}))
		informer := factory.Core().V1().Secrets().Informer()
		if _, err := informer.AddEventHandler(notify(wake)); err != nil {
			return fmt.Errorf("watch Secret %s: %w", name, err)
		}
		factory.StartWithContext(ctx)
		defer factory.Shutdown()
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return nil
		}
		stores = append(stores, informer.GetStore())
	}
	var retry <-chan time.Time
	seen, pauses := "", backoff.New(retryFirst, retryMost)
	for {
		plugged, own := s.find(stores[0], PluggedInSecret), s.find(stores[1], OwnSecret)
		if state := version(plugged) + "/" + version(own); state != seen || retry != nil {
			seen, retry = state, nil
			if err := s.reconcile(ctx, plugged, own); err != nil && ctx.Err() == nil {
				pause := pauses.Next()
				s.cfg.Logger.Error("the authority's Secret cannot be written", zap.Error(err), zap.Duration("retry", pause))
				retry = time.After(pause)
			} else {
				pauses.Reset()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-retry:
		}
	}
}

func notify(wake chan<- struct{}) cache.ResourceEventHandler {
	told := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { told() }, UpdateFunc: func(any, any) { told() }, DeleteFunc: func(any) { told() },
	}
}

func (s *Store) find(store cache.Store, name string) *corev1.Secret {
	obj, ok, err := store.GetByKey(s.cfg.Namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	return obj.(*corev1.Secret)
}

func version(secret *corev1.Secret) string {
	if secret == nil {
		return ""
	}
	return secret.ResourceVersion
}

// reconcile compares what is in force with the Secrets. Its error is one of the
// API server, worth another try; a Secret that cannot be taken is told of and
// left to its author, whose next change wakes the store.
func (s *Store) reconcile(ctx context.Context, plugged, own *corev1.Secret) error {
	switch {
	case plugged != nil:
		s.take(plugged)
		return nil
	case s.from == PluggedInSecret:
		s.refused.Set(1)
		s.cfg.Logger.Error("the plugged-in Secret was deleted: certificates are signed with its key on, but no replica can start without it; put it back",
			zap.String("secret", PluggedInSecret))
		return nil
	case own != nil:
		s.take(own)
		return nil
	}
	_, err := s.write(ctx, s.inForce)
	if apierrors.IsConflict(err) {
		return nil // somebody has written another; the watch brings it
	}
	if err == nil {
		s.cfg.Logger.Warn("the authority's Secret was deleted and is written again", zap.String("secret", OwnSecret))
	}
	return err
}

func (s *Store) take(secret *corev1.Secret) {
	m, err := material(secret)
	changed := false
	if err == nil {
		changed, err = s.authority.Replace(m)
	}
	if err != nil {
		s.refused.Set(1)
		s.cfg.Logger.Error("the authority's Secret is not taken over; what was in force before is used on",
			zap.String("secret", secret.Name), zap.String("in_force", s.from), zap.Error(err))
		return
	}
	s.refused.Set(0)
	s.inForce, s.from = m, secret.Name
	if changed {
		s.cfg.Logger.Info("another certificate signs from now on", append(authorityFields(s.authority), zap.String("secret", secret.Name))...)
	}
}
