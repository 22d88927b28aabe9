package main

import (
	"fmt"
	"io"

	"github.com/tulle-mesh/tulle/e2e/bench/report"
)

// mark is what a measure should reach at the full size.
type mark struct {
	measure string
	most    bool // the limit is the most that is good, else the least
	limit   float64
	what    string
}

// longestWait is the pause between istiod-lite's publications under churn, in
// milliseconds: its debounce, which the mark for latency comes on top of.
const longestWait = 100

var marks = []mark{
	{"change-p99", true, 500 + longestWait, "p99 at most 500 ms beyond the debounce of at most 100 ms"},
	{"rest-memory", true, 200, "at most 200 MiB resident at rest"},
	{"memory-peak", true, 300, "at most 300 MiB resident at the peak"},
	{"churn-cpu", true, 0.5, "at most 0.5 cores under churn"},
	{"certificates-per-core", false, 1000, "at least 1,000 certificates a second and core"},
}

// writeMarks says which marks the medians reach.
func writeMarks(w io.Writer, rows []report.Row) {
	for _, m := range marks {
		for _, row := range rows {
			if row.Name != m.measure {
				continue
			}
			verdict := "reached"
			if m.most && row.Median > m.limit || !m.most && row.Median < m.limit {
				verdict = "MISSED"
			}
			fmt.Fprintf(w, "%-7s  %s: %.3g %s\n", verdict, m.what, row.Median, row.Unit)
		}
	}
}
