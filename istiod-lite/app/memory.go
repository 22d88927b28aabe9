package app

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Memory. What is alive is the mesh, and it is small beside what a start, or a
// restart of a thousand proxies, allocates for a moment.
const (
	// gcPercent lets the heap grow by half of what is alive before it is
	// collected, not by all of it as Go's default has it: at 10,000 pods that is
	// 30 MiB for 2 % of a core under churn.
	gcPercent = 50

	// trimInterval is how often the process looks whether it has come to rest.
	// trimQuiet is the most that may have been allocated meanwhile, which leaves
	// room for a scrape of the metrics. trimWorth is how much must have been
	// allocated since the last collection for one to be worth its while.
	trimInterval = 5 * time.Second
	trimQuiet    = 4 << 20
	trimWorth    = 16 << 20
)

// keepSmall sets how the heap grows, unless GOGC says otherwise, and gives back
// what a burst took once the process rests: Go itself would do that two minutes
// later, and bit by bit. It returns when ctx ends.
func keepSmall(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	read := func() (allocated, cycles uint64) {
		metrics.Read(samples)
		return samples[0].Value.Uint64(), samples[1].Value.Uint64()
	}
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	last, lastCycles := read()
	collected := last // what had been allocated at about the last collection
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		allocated, cycles := read()
		if cycles != lastCycles {
			collected = last
		}
		if allocated-last < trimQuiet && allocated-collected > trimWorth {
			debug.FreeOSMemory()
			allocated, cycles = read()
			collected = allocated
		}
		last, lastCycles = allocated, cycles
	}
}
