package app

import "testing"

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	var tr trimmer
	for i, s := range []struct {
		live, peak int
		trim       bool
	}{
		{0, 0, false}, {100, 100, false}, {0, 100, false}, // too few to matter
		{2000, 2000, false}, {1900, 2000, false}, {1001, 1900, false}, // still more than half
		{900, 1001, true}, {800, 900, false}, // already done
		{300, 800, true}, {0, 300, false},
		{0, 3000, true}, {0, 0, false}, // came and went between two looks
	} {
		if got := tr.step(s.live, s.peak); got != s.trim {
			t.Errorf("step %d (%d live): %v, want %v", i, s.live, got, s.trim)
		}
	}
}
