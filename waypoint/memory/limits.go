package memory

const (
	// DefaultFloor was measured, on a busy machine: with 4 MiB, where Go begins to
	// collect, a request took 77 µs of CPU, with 16 MiB 63, with this 58. It leaves room
	// below the 60 MB that a waypoint may take at 1,000 requests a second.
	DefaultFloor = 24 << 20
	// defaultPercent is Go's default.
	defaultPercent = 100
	// percentStep rounds what is set.
	percentStep = 50
	// leastAlive is what Go takes for alive when it is less (runtime, defaultHeapMinimum).
	leastAlive = 4 << 20
)
