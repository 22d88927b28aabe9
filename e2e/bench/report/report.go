package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one measure of one variant over all rounds, as it stands in the file.
type Row struct {
	Name    string  `json:"name"`
	Variant string  `json:"variant"`
	Unit    string  `json:"unit"`
	Median  float64 `json:"median"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Rounds  int     `json:"rounds"`
}

// Report collects samples. Its zero value is empty and ready.
type Report struct {
	// variants keep the order of their first sample, and so do measures, except that
	// parts of one measure stand together.
	measures, variants []string
	units              map[string]string
	samples            map[[2]string][]float64
}

// Add takes one sample of a measure of a variant.
func (r *Report) Add(measure, variant, unit string, value float64) {
	if r.samples == nil {
		r.samples = map[[2]string][]float64{}
		r.units = map[string]string{}
	}
	if !slices.Contains(r.measures, measure) {
		r.measures = slices.Insert(r.measures, r.place(measure), measure)
		r.units[measure] = unit
	}
	if !slices.Contains(r.variants, variant) {
		r.variants = append(r.variants, variant)
	}
	key := [2]string{measure, variant}
	r.samples[key] = append(r.samples[key], value)
}

// parts are the ends of names that tell of one part of a measure.
var parts = []string{"-p50", "-p90", "-p99", "-added", "-cpu", "-memory", "-per-core", "-descriptors", "-goroutines"}

func family(measure string) string {
	for _, p := range parts {
		measure = strings.TrimSuffix(measure, p)
	}
	return measure
}

// place finds where a new measure belongs.
func (r *Report) place(measure string) int {
	for i, m := range slices.Backward(r.measures) {
		if family(m) == family(measure) {
			return i + 1
		}
	}
	return len(r.measures)
}

// Rows gives the medians, measure by measure.
func (r *Report) Rows() []Row {
	rows := []Row{}
	for _, measure := range r.measures {
		for _, variant := range r.variants {
			s := slices.Sorted(slices.Values(r.samples[[2]string{measure, variant}]))
			if len(s) == 0 {
				continue
			}
			rows = append(rows, Row{
				Name: measure, Variant: variant, Unit: r.units[measure],
				Median: median(s), Min: s[0], Max: s[len(s)-1], Rounds: len(s),
			})
		}
	}
	return rows
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// WriteTable prints every measure with its ratios to the baselines.
func (r *Report) WriteTable(w io.Writer, baselines []string) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "measure\tvariant\tmedian\tmin\tmax\tunit\trounds")
	for _, name := range baselines {
		fmt.Fprintf(tw, "\t/ %s", name)
	}
	fmt.Fprintln(tw)
	rows := r.Rows()
	last := ""
	for _, row := range rows {
		name := row.Name
		if name == last {
			name = ""
		} else if last != "" {
			fmt.Fprintln(tw, strings.Repeat("\t", 6+len(baselines)))
		}
		last = row.Name
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%d", name, row.Variant,
			digits(row.Median), digits(row.Min), digits(row.Max), row.Unit, row.Rounds)
		for _, name := range baselines {
			fmt.Fprintf(tw, "\t%s", ratio(row, name, rows))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func ratio(row Row, baseline string, rows []Row) string {
	for _, b := range rows {
		if b.Name == row.Name && b.Variant == baseline && b.Median != 0 && row.Variant != baseline {
			return fmt.Sprintf("%.2f", row.Median/b.Median)
		}
	}
	return "-"
}

// digits prints three significant digits or the whole number.
func digits(v float64) string {
	switch a := max(v, -v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// WriteJSON writes the rows to a file, through a temporary one beside it.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r.Rows(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
