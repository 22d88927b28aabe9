package main

import (
	"fmt"
	"io"

	"github.com/tulle-mesh/tulle/e2e/bench/report"
)

// mark is what the waypoint is held to: a figure of a variant, or its ratio to that of
// another one.
type mark struct {
	measure, variant, baseline string
	// limit is the least when atLeast, else the most.
	limit   float64
	atLeast bool
}

const (
	perCore   = "http1-64-per-core"
	perCore2  = "http2-8x8-per-core"
	perCoreG  = "grpc-8x8-per-core"
	addedP99  = "rate-1000-added-p99"
	rateCPU   = "rate-1000-cpu"
	rateBytes = "rate-1000-memory"
)

var marks = []mark{
	{perCore, "waypoint", "caddy", 4, true},
	{perCore, "waypoint", "traefik", 4, true},
	{perCore, "waypoint", "reverseproxy", 4, true},
	{perCore, "waypoint", "haproxy", 0.75, true},
	{perCore2, "waypoint", "caddy", 4, true},
	{perCore2, "waypoint", "traefik", 4, true},
	{perCore2, "waypoint", "reverseproxy", 4, true},
	{perCore2, "waypoint", "haproxy", 0.75, true},
	{perCoreG, "waypoint", "haproxy", 0.75, true},
	{addedP99, "waypoint", "haproxy", 1.2, false},
	{perCore, "waypoint-5000-routes", "waypoint-1-route", 0.9, true},
	{rateCPU, "waypoint-hbone", "", 0.25, false},
	{rateBytes, "waypoint-hbone", "", 60, false},
}

// writeMarks says of each mark that was measured whether it is reached.
func writeMarks(w io.Writer, rows []report.Row) {
	median := func(measure, variant string) (float64, bool) {
		for _, r := range rows {
			if r.Name == measure && r.Variant == variant {
				return r.Median, true
			}
		}
		return 0, false
	}
	for _, m := range marks {
		value, ok := median(m.measure, m.variant)
		of := ""
		if m.baseline != "" {
			base, measured := median(m.measure, m.baseline)
			ok = ok && measured && base > 0
			value /= base
			of = " of " + m.baseline
		}
		if !ok {
			continue
		}
		verdict, bound := "missed", "at most"
		if m.atLeast {
			bound = "at least"
		}
		if m.atLeast == (value >= m.limit) || value == m.limit {
			verdict = "reached"
		}
		fmt.Fprintf(w, "%s: %s, %s %.3g%s: %.3g\n", verdict, m.variant+" "+m.measure, bound, m.limit, of, value)
	}
}
