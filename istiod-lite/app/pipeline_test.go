package app

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	security "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// churn is a source whose objects the test sets, and the publisher at the other
// end of the pipeline.
type churn struct {
	objects   atomic.Pointer[source.Objects]
	changed   chan struct{}
	published []time.Time // in virtual time
	names     []int       // resources of each publication
	latest    *snapshot.Snapshot
}

func (c *churn) Objects() *source.Objects { return c.objects.Load() }
func (c *churn) Changed() <-chan struct{} { return c.changed }
func (c *churn) Publish(s *snapshot.Snapshot, change snapshot.Change, _ time.Time) {
	c.published = append(c.published, time.Now())
	c.names = append(c.names, len(change.Deltas[snapshot.AddressType]))
	c.latest = s
}

// set makes pods 0..n-1 with addresses of round r the newest state.
func (c *churn) set(n, r int) {
	b := source.NewBuilder()
	for i := range n {
		b.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("p%d", i)},
			Status: corev1.PodStatus{PodIP: fmt.Sprintf("10.0.%d.%d", r, i+1)}}, source.Origin{})
	}
	c.objects.Store(b.Build())
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func start(t *testing.T, c *churn, window time.Duration) (stop func()) {
	t.Helper()
	_, stop = startPipeline(t, c, window)
	return stop
}

func startPipeline(t *testing.T, c *churn, window time.Duration) (p *pipeline, stop func()) {
	t.Helper()
	m, err := newPipelineMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p = &pipeline{source: c, publisher: c, translator: translate.New(translate.Options{}), window: window, log: zap.NewNop(), metrics: m, published: func() {}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	return p, func() { cancel(); <-done }
}

// TestBehindUntilTheNewestObjectsAreServed is what a caller that changed an
// object goes by before it believes the states of the clients.
func TestBehindUntilTheNewestObjectsAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		window := config.Default().Debounce
		c := &churn{changed: make(chan struct{}, 1)}
		p, stop := startPipeline(t, c, window)
		defer stop()
		for _, pods := range []int{1, 2, 2} { // the last without a difference
			c.set(pods, 0)
			time.Sleep(window - time.Nanosecond)
			synctest.Wait()
			if !p.behind() {
				t.Errorf("%d pods: not behind before the end of the window", pods)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if p.behind() {
				t.Errorf("%d pods: still behind after the window", pods)
			}
			time.Sleep(p.pause())
		}
	})
}

// TestANewWarningIsLoggedOnce changes other things meanwhile.
func TestANewWarningIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		window := config.Default().Debounce
		c := &churn{changed: make(chan struct{}, 1)}
		p, stop := startPipeline(t, c, window)
		p.log = zap.New(core)
		defer stop()
		for _, path := range []string{"/a", "/a", "/b"} {
			b := source.NewBuilder()
			b.Add(&securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p" + path[1:]}, Spec: security.AuthorizationPolicy{
				Rules: []*security.Rule{{To: []*security.Rule_To{{Operation: &security.Operation{Paths: []string{path}}}}}}}}, source.Origin{})
			c.objects.Store(b.Build())
			c.changed <- struct{}{}
			time.Sleep(p.pause())
		}
		synctest.Wait()
		var objects []string
		for _, e := range logs.All() {
			objects = append(objects, fmt.Sprint(e.ContextMap()["object"]))
		}
		if want := []string{"AuthorizationPolicy shop/pa", "AuthorizationPolicy shop/pb"}; !slices.Equal(objects, want) {
			t.Errorf("warned of %v, want %v", objects, want)
		}
	})
}

// TestSteadyChurnIsPublishedAtAPace changes something every 5 ms for a second. A
// pipeline that waited for quiet would publish nothing, and one that waited for
// the window alone would publish four times as often.
func TestSteadyChurnIsPublishedAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		window := config.Default().Debounce
		c := &churn{changed: make(chan struct{}, 1)}
		p, stop := startPipeline(t, c, window)
		began := time.Now()
		for r := range 200 {
			c.set(3, r)
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(p.pause())
		stop()
		if len(c.published) == 0 || c.published[0].Sub(began) != window {
			t.Fatalf("first publication after %v, want %v", c.published, window)
		}
		last := c.published[0]
		for _, at := range c.published[1:] {
			if gap := at.Sub(last); gap != 100*time.Millisecond {
				t.Errorf("%v between publications, want 100ms", gap)
			}
			last = at
		}
		// The last change of all is in the last publication.
		e := c.latest.Sets[snapshot.AddressType].Entries["Kubernetes//Pod/shop/p0"]
		if e == nil || e.Aliases[0] != "/10.0.199.1" {
			t.Errorf("the newest state was not published: %+v", e)
		}
	})
}

func TestABurstIsPublishedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &churn{changed: make(chan struct{}, 1)}
		stop := start(t, c, 25*time.Millisecond)
		for r := range 10 {
			c.set(4, r)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		stop()
		if len(c.published) != 1 || c.names[0] != 4 {
			t.Errorf("%d publications of %v resources, want one of 4", len(c.published), c.names)
		}
	})
}

func TestAChangeThatProxiesDoNotSeeIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &churn{changed: make(chan struct{}, 1)}
		stop := start(t, c, time.Millisecond)
		c.set(2, 1)
		time.Sleep(time.Second)
		c.set(2, 1) // other objects, the same content
		time.Sleep(time.Second)
		stop()
		if len(c.published) != 1 || c.latest.Serial != 1 {
			t.Errorf("%d publications", len(c.published))
		}
	})
}
