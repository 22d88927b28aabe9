package check

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// Status of a check.
type Status string

// The statuses.
const (
	Passed  Status = "passed"
	Warned  Status = "warned"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Result is the outcome of one check.
type Result struct {
	Category string `json:"category"`
	// Name says what is as it should be, or should be.
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Items are what is wrong, one by one.
	Items []string `json:"items,omitempty"`
	// Hint says what to do.
	Hint string `json:"hint,omitempty"`
}

// Report is all results.
type Report struct {
	// Outcome is Failed, else Warned, else Passed.
	Outcome Status   `json:"outcome"`
	Passed  int      `json:"passed"`
	Warned  int      `json:"warned"`
	Failed  int      `json:"failed"`
	Skipped int      `json:"skipped"`
	Results []Result `json:"results"`
}

// Options say what to check.
type Options struct {
	// Pre checks whether a mesh can be installed, not one that is.
	Pre bool
	// Version is the checker's own, to compare with; "dev" and empty compare with
	// nothing.
	Version string
	// Now is the time that certificates are judged by; zero is the present.
	Now time.Time
}

// runner collects the results of one run.
type runner struct {
	ctx      context.Context
	mesh     mesh.Mesh
	cluster  *mesh.Cluster // nil for a local mesh
	opt      Options
	category string
	report   *Report
	emit     func(Result)
}

// Run does all checks; emit gets every result as soon as it is there.
func Run(ctx context.Context, m mesh.Mesh, opt Options, emit func(Result)) *Report {
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	r := &runner{ctx: ctx, mesh: m, opt: opt, report: &Report{Outcome: Passed, Results: []Result{}}, emit: emit}
	r.cluster, _ = m.(*mesh.Cluster)
	r.all()
	switch {
	case r.report.Failed > 0:
		r.report.Outcome = Failed
	case r.report.Warned > 0:
		r.report.Outcome = Warned
	}
	return r.report
}

func (r *runner) all() {
	if r.cluster != nil {
		r.kubernetes()
		if r.opt.Pre {
			r.preinstall()
			r.definitions()
			return
		}
		r.definitions()
		if !r.installation() {
			return
		}
	}
	control := r.controlPlane()
	proxies := r.dataPlane(control)
	r.identity(proxies)
	r.enrolment()
}

func (r *runner) add(name string, status Status, hint string, items []string) {
	slices.Sort(items)
	if n := len(items) - maxItems; n > 0 {
		items = append(items[:maxItems:maxItems], fmt.Sprintf("and %d more", n))
	}
	res := Result{Category: r.category, Name: name, Status: status, Hint: hint, Items: items}
	r.report.Results = append(r.report.Results, res)
	switch status {
	case Passed:
		r.report.Passed++
	case Warned:
		r.report.Warned++
	case Failed:
		r.report.Failed++
	case Skipped:
		r.report.Skipped++
	}
	r.emit(res)
}

func (r *runner) pass(name string) { r.add(name, Passed, "", nil) }

func (r *runner) fail(name, hint string, items ...string) { r.add(name, Failed, hint, items) }

func (r *runner) warn(name, hint string, items ...string) { r.add(name, Warned, hint, items) }

// unless passes when there are no items, else it fails or warns with them.
func (r *runner) unless(items []string, status Status, name, hint string) {
	if len(items) == 0 {
		r.pass(name)
		return
	}
	r.add(name, status, hint, items)
}

// broken reports a check whose question could not be asked.
func (r *runner) broken(name string, err error) {
	r.warn(name, "", "cannot tell: "+err.Error())
}
