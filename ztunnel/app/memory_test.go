package app

import "testing"

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	const mib = 1 << 20
	var tr trimmer
	allocated := uint64(0)
	for i, s := range []struct {
		more uint64
		trim bool
	}{
		{mib / 2, false}, {mib / 2, false}, // idle from the start
		{2 * mib, false}, {0, false}, // too little to matter
		{100 * mib, false}, {50 * mib, false}, // still at work
		{mib / 2, true}, {mib / 2, false}, {0, false}, // over, once
		{20 * mib, false}, {0, true},
	} {
		allocated += s.more
		if got := tr.step(allocated); got != s.trim {
			t.Errorf("step %d: %v, want %v", i, got, s.trim)
		}
	}
}
