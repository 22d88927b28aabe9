package memory

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Floor lets the heap grow to as many bytes before it is collected, and above that as
// Go's default has it, to twice of what is alive. It does nothing where GOGC is set: the
// operator has decided then. stop ends it and restores what was; it may be called more
// than once.
func Floor(bytes uint64) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	f := &floor{bytes: bytes, sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	f.before = debug.SetGCPercent(defaultPercent)
	f.percent = defaultPercent
	f.adjust()
	return f.stop
}

type floor struct {
	bytes  uint64
	before int

	mu      sync.Mutex
	sample  []metrics.Sample
	percent int
	stopped bool
}

// sentinel is garbage from the start: its finalizer runs after each collection.
type sentinel struct{ _ [16]byte }

// adjust sets the next collection's mark, and has itself called after that.
func (f *floor) adjust() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	metrics.Read(f.sample)
	if p := percentFor(f.sample[0].Value.Uint64(), f.bytes); p != f.percent {
		f.percent = p
		debug.SetGCPercent(p)
	}
	runtime.SetFinalizer(new(sentinel), func(*sentinel) { f.adjust() })
}

func (f *floor) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stopped {
		f.stopped = true
		debug.SetGCPercent(f.before)
	}
}

// percentFor is how much the heap may grow by, in percent of what is alive, in steps, so
// that it is not changed after every collection: a change stops the world for a moment.
func percentFor(alive, floor uint64) int {
	// Below this much alive, Go goes by the percentage of this.
	alive = max(alive, leastAlive)
	if alive >= floor/2 {
		return defaultPercent
	}
	percent := int((floor - alive) * 100 / alive)
	return max(defaultPercent, percent/percentStep*percentStep)
}
