package lifecycle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGroupEndsAllWithTheFirstErrorAndNamesWhoFailed(t *testing.T) {
	broken := errors.New("broken")
	g := lifecycle.NewGroup(t.Context())
	g.Go("waiter", func(ctx context.Context) error { <-ctx.Done(); return errors.New("said on the way out") })
	g.Go("worker", func(context.Context) error { return broken })
	err := g.Wait()
	if !errors.Is(err, broken) || err.Error() != "worker: broken" {
		t.Fatalf("Wait() = %v", err)
	}
}

func TestGroupStopIsNoError(t *testing.T) {
	g := lifecycle.NewGroup(t.Context())
	g.Go("waiter", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	g.Stop(nil)
	if err := g.Wait(); err != nil {
		t.Fatalf("Wait() = %v", err)
	}
}

func TestDrainRefusesNewWorkAndWaitsForTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := lifecycle.NewDrain()
		release, ok := d.Hold()
		if !ok {
			t.Fatal("Hold before Begin refused")
		}
		d.Begin()
		if _, ok := d.Hold(); ok {
			t.Fatal("Hold after Begin accepted")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if left := d.Wait(ctx); left != 1 {
			t.Fatalf("Wait at the deadline left %d, want 1", left)
		}
		time.AfterFunc(time.Second, release)
		if left := d.Wait(t.Context()); left != 0 {
			t.Fatalf("Wait left %d, want 0", left)
		}
		release()
	})
}

func TestDrainOfNothingEndsAtOnce(t *testing.T) {
	d := lifecycle.NewDrain()
	if left := d.Wait(t.Context()); left != 0 {
		t.Fatalf("Wait left %d", left)
	}
	select {
	case <-d.Draining():
	default:
		t.Fatal("Draining is not closed")
	}
}
