package state_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func findA(s *state.Snapshot) *workload.Workload { return s.WorkloadByPod("shop", "a") }

func TestWaitWorkloadReturnsWhenItIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New(state.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		go func() {
			time.Sleep(time.Second)
			apply(t, s, pod("b", "10.0.0.2"))
			time.Sleep(time.Second)
			apply(t, s, pod("a", "10.0.0.1"))
		}()
		start := time.Now()
		w, err := s.WaitWorkload(ctx, findA)
		if err != nil || w.Name != "a" {
			t.Fatalf("%v, %v", w, err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("returned after %v", d)
		}
	})
}

func TestWaitWorkloadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New(state.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := s.WaitWorkload(ctx, findA)
		if !errors.Is(err, state.ErrNotAnnounced) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestChangeIsAnnouncedOnTheSnapshotItReplaces(t *testing.T) {
	s := state.New(state.Config{})
	snap := s.Snapshot()
	select {
	case <-snap.Changed():
		t.Fatal("changed before anything happened")
	default:
	}
	apply(t, s, pod("a", "10.0.0.1"))
	select {
	case <-snap.Changed():
	default:
		t.Fatal("the change was not announced")
	}
	select {
	case <-s.Changed():
		t.Error("the new snapshot is already replaced")
	default:
	}
	if s.Snapshot().Version() != snap.Version()+1 {
		t.Errorf("version %d after %d", s.Snapshot().Version(), snap.Version())
	}
}
