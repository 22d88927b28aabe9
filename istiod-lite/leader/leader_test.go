package leader_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/leader"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

// candidate is one replica that stands for election.
type candidate struct {
	*leader.Election
	stop func() // ends it in order and waits
}

// stand starts a candidate. leading counts those whose lead runs.
func stand(t *testing.T, client kubernetes.Interface, ns, name string, leading *atomic.Int32) *candidate {
	t.Helper()
	e, err := leader.New(leader.Config{Client: client, Namespace: ns, Name: "lease", Identity: name,
		LeaseDuration: 4 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- e.Run(ctx, func(ctx context.Context) {
			if n := leading.Add(1); n != 1 {
				t.Errorf("%d lead at a time", n)
			}
			<-ctx.Done()
			leading.Add(-1)
		})
	}()
	stopped := false
	c := &candidate{Election: e, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}}
	t.Cleanup(c.stop)
	return c
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(bound)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", bound, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestOneLeadsAndHandsOver(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	ns := api.Namespace(t, nil)
	var leading atomic.Int32
	a := stand(t, api.Client, ns, "replica", &leading)
	await(t, "the first to lead", a.Leading)
	b := stand(t, api.Client, ns, "replica", &leading) // another process of the same name
	a.stop()
	if a.Leading() {
		t.Error("leads after its end")
	}
	lease, err := api.Client.CoordinationV1().Leases(ns).Get(t.Context(), "lease", metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == a.Identity() {
		t.Errorf("the lease was not given up: %v, %v", lease.Spec, err)
	}
	await(t, "the second to lead", b.Leading)
}

// TestALostLeaseEndsTheLead has somebody else take the Lease away.
func TestALostLeaseEndsTheLead(t *testing.T) {
	api := kubetest.Shared(t, kubetest.Options{})
	ns := api.Namespace(t, nil)
	var leading atomic.Int32
	a := stand(t, api.Client, ns, "a", &leading)
	await(t, "it to lead", a.Leading)
	leases := api.Client.CoordinationV1().Leases(ns)
	other := "other"
	await(t, "the lease to be taken", func() bool {
		lease, err := leases.Get(t.Context(), "lease", metav1.GetOptions{})
		if err != nil {
			return false
		}
		now := metav1.NowMicro()
		lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.AcquireTime = &other, &now, &now
		_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
		return err == nil
	})
	await(t, "its lead to end", func() bool { return !a.Leading() && leading.Load() == 0 })
	// The other does not renew; then it is the candidate's turn again.
	await(t, "it to lead again", a.Leading)
}

// TestALeaderWithoutAPIServerStops cuts the API server off.
func TestALeaderWithoutAPIServerStops(t *testing.T) {
	api := kubetest.Start(t, kubetest.Options{WithoutCRDs: true})
	t.Cleanup(api.Close)
	var leading atomic.Int32
	a := stand(t, api.Client, "default", "a", &leading)
	await(t, "it to lead", a.Leading)
	api.Stop()
	await(t, "its lead to end", func() bool { return !a.Leading() && leading.Load() == 0 })
}
