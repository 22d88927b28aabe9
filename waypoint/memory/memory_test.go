package memory_test

import (
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/memory"
)

// goal is how large the heap may grow before it is collected.
func goal() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

var keep []byte

// awaitGoal collects until the goal fits: what sets it runs after a collection.
func awaitGoal(t *testing.T, fits func(uint64) bool) {
	t.Helper()
	for range 1000 {
		runtime.GC()
		if fits(goal()) {
			return
		}
		runtime.Gosched()
	}
	t.Fatalf("the heap may grow to %d bytes", goal())
}

func TestHeapGrowsToTheFloorAndThenAsItDoes(t *testing.T) {
	t.Setenv("GOGC", "")
	const floor = 64 << 20
	stop := memory.Floor(floor)
	defer stop()
	awaitGoal(t, func(g uint64) bool { return g > floor*3/4 && g < floor*5/4 })

	keep = make([]byte, floor) // alive above the floor: twice of it, not ten times
	awaitGoal(t, func(g uint64) bool { return g > 2*floor && g < 3*floor })

	keep = nil
	awaitGoal(t, func(g uint64) bool { return g > floor*3/4 && g < floor*5/4 })
	stop()
	awaitGoal(t, func(g uint64) bool { return g < floor/2 })
}

func TestTheOperatorsWordCounts(t *testing.T) {
	t.Setenv("GOGC", "100")
	before := goal()
	memory.Floor(1 << 30)()
	if goal() > 4*before {
		t.Errorf("the heap may grow to %d bytes", goal())
	}
}
