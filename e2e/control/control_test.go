package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/e2e/bench/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAChangeCountsWhenTheLastProxyHasIt lets proxies see things twice, early
// and late.
func TestAChangeCountsWhenTheLastProxyHasIt(t *testing.T) {
	tr := newTracker(3)
	at := time.Now()
	later := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }
	tr.saw(0, "a", appeared, at) // nobody waits for it
	tr.expect("a", appeared, at)
	tr.expect("a", gone, at)
	tr.saw(0, "a", appeared, later(10))
	tr.saw(0, "a", appeared, later(20))
	tr.saw(2, "a", appeared, later(5))
	if n := tr.pending(later(100)); n != 2 {
		t.Errorf("%d pending, want both", n)
	}
	tr.saw(1, "a", appeared, later(30))
	if n := tr.pending(later(100)); n != 2 {
		t.Errorf("%d pending before the API has answered, want both", n)
	}
	tr.wrote("a", appeared, later(12))
	if o := tr.take(); len(o.whole) != 1 || o.whole[0] != 30*time.Millisecond || o.write[0] != 12*time.Millisecond || o.after[0] != 18*time.Millisecond || o.lost != 0 {
		t.Errorf("outcome %+v", o)
	}
	if n := tr.pending(at.Add(time.Hour)); n != 0 {
		t.Errorf("%d pending after an hour", n)
	}
	if o := tr.take(); len(o.whole) != 0 || o.lost != 1 {
		t.Errorf("outcome %+v, want one lost", o)
	}
	tr.expect("b", gone, at)
	tr.forget("b", gone)
	if n := tr.pending(at); n != 0 {
		t.Errorf("%d pending after it was taken back", n)
	}
}

func TestPercentiles(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(i))
	}
	for p, want := range map[int]time.Duration{50: 100, 99: 198, 100: 199} {
		if got := percentile(times, p); got != want {
			t.Errorf("p%d is %d, want %d", p, got, want)
		}
	}
	if percentile(nil, 99) != 0 {
		t.Error("a percentile of nothing")
	}
}

func TestMemoryOfAProcess(t *testing.T) {
	resident, peak, err := parseStatus("Name:\tistiod-lite\nVmHWM:\t  307200 kB\nVmRSS:\t  102400 kB\nThreads:\t9\n")
	if err != nil || resident != 100<<20 || peak != 300<<20 {
		t.Errorf("resident %v, peak %v, %v", resident, peak, err)
	}
	if _, _, err := parseStatus("Name:\tistiod-lite\nVmHWM:\t 1 kB\n"); err == nil {
		t.Error("a status without resident memory is taken")
	}
}

func TestMarks(t *testing.T) {
	var b bytes.Buffer
	writeMarks(&b, []report.Row{
		{Name: "change-p99", Median: 601, Unit: "ms"}, {Name: "rest-memory", Median: 200, Unit: "MiB"}, {Name: "certificates-per-core", Median: 999}})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	for i, verdict := range []string{"MISSED", "reached", "MISSED"} {
		if !strings.HasPrefix(lines[i], verdict) {
			t.Errorf("%q, want %s", lines[i], verdict)
		}
	}
}

func TestShortIsOnlyADefault(t *testing.T) {
	o, err := parse([]string{"-pods", "500", "-short"})
	if err != nil || o.pods != 500 || o.services != 100 || o.rounds != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-rate", "1"}, {"-pods", "10"}, {"-profile"}, {"what"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
