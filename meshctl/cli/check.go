package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/meshctl/check"
)

// checkPeriod is how often --wait looks again.
const checkPeriod = 2 * time.Second

func newCheck(s *streams) *cobra.Command {
	output := outputFlag("table")
	var (
		pre  bool
		wait time.Duration
	)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether the mesh is healthy, and what to do where it is not",
		Long: `Checks the cluster, the installation, certificates, control plane, data plane and
what is labelled for the mesh, and says of each whether it is as it should be:
√ passed, ‼ warned, × failed, with what is wrong and a hint. --pre checks instead
whether a mesh can be installed. On a local mesh it checks what there is of these.

Exit status: 0 nothing failed, 1 something failed, 2 nothing could be checked.`,
		Example: `  meshctl check --pre
  meshctl check --wait 2m
  meshctl check -o json`,
		Args:        noArguments,
		Annotations: map[string]string{verdict: "1"},
	}
	t := newTarget(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		m, err := t.open(cmd.Context())
		if err != nil {
			return exitWith(2, "%w", err)
		}
		if pre && m.Local() {
			return exitWith(2, "--pre is about installing a mesh in a cluster; choose one with --context")
		}
		p := &checkPrinter{s: s, paint: paint(s.outFile)}
		opt := check.Options{Pre: pre, Version: telemetry.Version}
		report := await(cmd.Context(), wait, s, func(ctx context.Context, last bool) *check.Report {
			emit := func(check.Result) {}
			if last && !output.document() {
				emit = p.print
			}
			return check.Run(ctx, m, opt, emit)
		})
		if err := output.print(s.out, report, func() { p.summary(report) }); err != nil {
			return exitWith(2, "%w", err)
		}
		if report.Outcome == check.Failed {
			return exitError(1)
		}
		return nil
	}
	cmd.Flags().BoolVar(&pre, "pre", false, "check whether a mesh can be installed")
	cmd.Flags().DurationVar(&wait, "wait", 0, "look again until nothing fails, for at most this long")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

// await runs the checks until nothing fails or the time is over. The run that is
// shown is the last one: what failed on the way there is no news.
func await(ctx context.Context, limit time.Duration, s *streams, run func(ctx context.Context, last bool) *check.Report) *check.Report {
	if limit <= 0 {
		return run(ctx, true)
	}
	deadline := time.Now().Add(limit)
	shown := ""
	for time.Now().Before(deadline) && ctx.Err() == nil {
		report := run(ctx, false)
		if report.Failed == 0 {
			break
		}
		for _, r := range report.Results {
			if r.Status == check.Failed {
				if text := fmt.Sprintf("waiting: %s (%s)", r.Name, r.Category); text != shown {
					shown = text
					fmt.Fprintln(s.err, text)
				}
				break
			}
		}
		select {
		case <-time.After(min(checkPeriod, time.Until(deadline))):
		case <-ctx.Done():
		}
	}
	return run(ctx, true)
}

// checkPrinter writes results as they come.
type checkPrinter struct {
	s        *streams
	paint    func(colour, text string) string
	category string
}

var checkMarks = map[check.Status]struct{ mark, colour string }{
	check.Passed: {"√", green}, check.Warned: {"‼", yellow}, check.Failed: {"×", red}, check.Skipped: {"-", "2"},
}

func (p *checkPrinter) print(r check.Result) {
	if r.Category != p.category {
		if p.category != "" {
			fmt.Fprintln(p.s.out)
		}
		p.category = r.Category
		fmt.Fprintln(p.s.out, p.paint(bold, r.Category))
	}
	m := checkMarks[r.Status]
	p.block(p.paint(m.colour, m.mark)+" ", 2, r.Name)
	for _, item := range r.Items {
		p.block("    ", 4, item)
	}
	if r.Hint != "" {
		p.block("    hint: ", 10, r.Hint)
	}
}

func (p *checkPrinter) block(prefix string, columns int, text string) {
	e := explanation{w: p.s.out}
	e.block(prefix, columns, text)
}

func (p *checkPrinter) summary(r *check.Report) {
	fmt.Fprintln(p.s.out)
	text := fmt.Sprintf("%d passed", r.Passed)
	if r.Warned > 0 {
		text += fmt.Sprintf(", %d warned", r.Warned)
	}
	if r.Failed > 0 {
		text += fmt.Sprintf(", %d failed", r.Failed)
	}
	m := checkMarks[r.Outcome]
	fmt.Fprintln(p.s.out, p.paint(m.colour, m.mark)+" "+text)
}
