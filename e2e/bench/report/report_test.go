package report_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tulle-mesh/tulle/e2e/bench/report"
)

func sample() *report.Report {
	var r report.Report
	for _, v := range []float64{4, 1, 2} {
		r.Add("bulk-1-up", "direct", "Gbit/s", 2*v)
		r.Add("bulk-1-up", "tulle-h2", "Gbit/s", v)
	}
	r.Add("idle-1000", "tulle-h2", "KiB/conn", 31.25)
	r.Add("idle-1000", "tulle-h2", "KiB/conn", 32.25)
	return &r
}

func TestMedians(t *testing.T) {
	want := []report.Row{
		{Name: "bulk-1-up", Variant: "direct", Unit: "Gbit/s", Median: 4, Min: 2, Max: 8, Rounds: 3},
		{Name: "bulk-1-up", Variant: "tulle-h2", Unit: "Gbit/s", Median: 2, Min: 1, Max: 4, Rounds: 3},
		{Name: "idle-1000", Variant: "tulle-h2", Unit: "KiB/conn", Median: 31.75, Min: 31.25, Max: 32.25, Rounds: 2},
	}
	if diff := cmp.Diff(want, sample().Rows()); diff != "" {
		t.Error(diff)
	}
}

func TestPartsOfAMeasureStandBehindIt(t *testing.T) {
	var r report.Report
	for _, m := range []string{"rr-1", "rr-1-p50", "rr-64", "rate-p50", "bulk-1-up", "rr-1-cpu", "rr-64-cpu", "rate-cpu"} {
		r.Add(m, "relay", "", 1)
	}
	var got []string
	for _, row := range r.Rows() {
		got = append(got, row.Name)
	}
	want := []string{"rr-1", "rr-1-p50", "rr-1-cpu", "rr-64", "rr-64-cpu", "rate-p50", "rate-cpu", "bulk-1-up"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFileHasTheRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "bench.json")
	if err := sample().WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []report.Row
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample().Rows(), rows); diff != "" {
		t.Error(diff)
	}
}

func TestTableHasRatios(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteTable(&b, []string{"direct", "haproxy"}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "tulle-h2") && strings.Contains(line, "Gbit/s") {
			if f := strings.Fields(line); f[len(f)-2] != "0.50" || f[len(f)-1] != "-" {
				t.Errorf("ratios in %q", line)
			}
			return
		}
	}
	t.Errorf("no line of tulle-h2 in\n%s", b.String())
}
