package state_test

import (
	"testing"
	"testing/synctest"
	"time"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/state"
)

func TestJoinedTellsWhenAKnownWorkloadBecameReachedByTunnels(t *testing.T) {
	const uid = "Kubernetes//Pod/shop/a"
	none, tunnel := api.TunnelProtocol_NONE, api.TunnelProtocol_HBONE
	for _, tc := range []struct {
		name string
		seen []api.TunnelProtocol
		gone bool // removed before the last one
		want bool
	}{
		{"never heard of", nil, false, false},
		{"not in the mesh", []api.TunnelProtocol{none}, false, false},
		{"in it from the first", []api.TunnelProtocol{tunnel}, false, false},
		{"joined", []api.TunnelProtocol{none, tunnel}, false, true},
		{"joined and told again", []api.TunnelProtocol{none, tunnel, tunnel}, false, true},
		{"left", []api.TunnelProtocol{none, tunnel, none}, false, false},
		{"back", []api.TunnelProtocol{tunnel, none, tunnel}, false, true},
		{"another one of its name", []api.TunnelProtocol{none, tunnel}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := state.New(state.Config{})
				for i, p := range tc.seen {
					if tc.gone && i == len(tc.seen)-1 {
						remove(s, uid)
					}
					apply(t, s, pod("a", "10.0.0.1", func(w *api.Workload) { w.TunnelProtocol = p }))
				}
				at := s.Snapshot().Joined(uid)
				if at.IsZero() == tc.want {
					t.Fatalf("joined at %v", at)
				}
				if tc.want && !at.Equal(time.Now()) {
					t.Errorf("joined at %v, it is %v", at, time.Now())
				}
				// It is not remembered for ever.
				time.Sleep(2 * time.Minute)
				apply(t, s, pod("b", "10.0.0.2"))
				if at := s.Snapshot().Joined(uid); !at.IsZero() {
					t.Errorf("two minutes later: joined at %v", at)
				}
			})
		})
	}
}

func TestMovesCountsWhatTunnelsDependOn(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*api.Workload)
		moved  bool
	}{
		{"nothing", func(*api.Workload) {}, false},
		{"its health", func(w *api.Workload) { w.Status = api.WorkloadStatus_UNHEALTHY }, false},
		{"its address", func(w *api.Workload) { w.Addresses = [][]byte{{10, 0, 0, 2}} }, true},
		{"its account", func(w *api.Workload) { w.ServiceAccount = "b" }, true},
		{"its protocol", func(w *api.Workload) { w.TunnelProtocol = api.TunnelProtocol_NONE }, true},
	} {
		s := state.New(state.Config{})
		before := apply(t, s, pod("a", "10.0.0.1")).Moves()
		w := pod("a", "10.0.0.1", tc.change)
		apply(t, s, w)
		if moved := s.Snapshot().Moves() != before; moved != tc.moved {
			t.Errorf("%s: moved %v", tc.name, moved)
		}
		before = s.Snapshot().Moves()
		remove(s, w.Uid)
		if s.Snapshot().Moves() == before {
			t.Errorf("%s: a removal is no move", tc.name)
		}
	}
}
