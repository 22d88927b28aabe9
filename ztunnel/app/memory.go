package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go's runtime is left as it is: GOMAXPROCS follows the container's CPU limit by
// itself, and GOGC of 50, 100 and 200 took the same resident memory (25 KiB for an
// idle connection, both proxies together), because what a proxy holds is not
// garbage. Only one thing needs help: after a burst there is nothing to allocate,
// so no collection would run for two minutes, and the burst's memory would stay
// with the process.

const (
	// trimInterval is how often the allocations are looked at.
	trimInterval = 10 * time.Second
	// quietBytes is what a process without work allocates at most within an
	// interval: scrapes, probes, the control plane's keepalive.
	quietBytes = 1 << 20
	// trimBytes is the least that must have been allocated to be worth the some 10 ms
	// of CPU that giving back costs: about 1,000 connections, or some minutes of scrapes.
	trimBytes = 4 << 20
)

// trimmer decides when to give memory back.
type trimmer struct{ last, trimmed uint64 }

// step is told how many bytes the process has allocated in its life, and tells
// whether a burst is over and its memory should go back to the system.
func (t *trimmer) step(allocated uint64) bool {
	quiet := allocated-t.last < quietBytes
	t.last = allocated
	if !quiet || allocated-t.trimmed < trimBytes {
		return false
	}
	t.trimmed = allocated
	return true
}

// watchMemory gives memory back to the system after bursts, until ctx ends.
func watchMemory(ctx context.Context) error {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var t trimmer
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		metrics.Read(sample)
		if t.step(sample[0].Value.Uint64()) {
			runtime.GC() // pools give their contents up at the second collection
			debug.FreeOSMemory()
		}
	}
}
