package metrics

import "time"

const (
	// defaultMaxSeries bounds pairs of peers. One series costs about 1 KiB and five
	// lines of a scrape; a node talks to far fewer pairs, but labels come from
	// the mesh and must not be able to fill the node's memory.
	defaultMaxSeries = 20000
	// defaultIdle is after how long without any connection a pair is forgotten:
	// longer than any usual scrape interval and rate window (5 min), so that
	// nobody sees a counter vanish in the middle of a window.
	defaultIdle = time.Hour
	// sweepInterval spaces searches for room when the bound is reached: each
	// visits every series.
	sweepInterval = time.Second
)
