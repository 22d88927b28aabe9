package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/install"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

// valueFlags are the values of an installation, as files and as assignments.
type valueFlags struct {
	files       []string
	assignments []string
}

func (v *valueFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&v.files, "values", "f", nil, "YAML `FILE` with values, - for standard input; repeatable, the last one goes before")
	flags.StringArrayVar(&v.assignments, "set", nil, "one value, `KEY=VALUE`, such as istiod.replicas=3; repeatable, goes before --values")
}

// read merges what was given. Whether such values exist is judged when they are
// rendered, with all of them.
func (v *valueFlags) read(stdin io.Reader) (manifests.Values, error) {
	out := manifests.Values{}
	for _, name := range v.files {
		var data []byte
		var err error
		if name == "-" {
			data, err = io.ReadAll(stdin)
		} else {
			data, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, fmt.Errorf("--values: %w", err)
		}
		values, err := manifests.ParseValues(data)
		if err != nil {
			return nil, fmt.Errorf("--values %s: %w", name, err)
		}
		out = manifests.Override(out, values)
	}
	for _, text := range v.assignments {
		values, err := manifests.Set(text)
		if err != nil {
			return nil, fmt.Errorf("--set %w", err)
		}
		out = manifests.Override(out, values)
	}
	return out, nil
}

// document tells whether standard output is for programs.
func (o outputFlag) document() bool { return o == "json" || o == "yaml" }

// progress returns where a command tells what it does: standard output, unless that
// carries a document.
func progress(s *streams, output outputFlag) func(line string) {
	w := s.out
	if output.document() {
		w = s.err
	}
	return func(line string) { fmt.Fprintln(w, line) }
}

func newInstall(s *streams) *cobra.Command {
	var (
		target kube.Flags
		values valueFlags
		opt    = install.Options{Version: telemetry.Version}
		wait   bool
		limit  time.Duration
		output = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put a mesh into a cluster",
		Long: `Applies the mesh's objects to the cluster, in an order in which nothing waits for
what comes later, and waits until control plane, agents and proxies are ready.
Pods join when their namespace does: meshctl namespace join.

Doing it twice changes nothing. With other values it changes what differs, and
removes what is no longer wanted; a value that is not given has its default, so
keep what you give in a file. --dry-run shows what would change; with -o yaml or
-o json it prints the objects and asks no cluster.`,
		Example: `  meshctl install
  meshctl install --set istiod.replicas=3 --set carrier=h3
  meshctl install -f values.yaml --dry-run -o yaml > tulle.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var err error
			if opt.Values, err = values.read(s.in); err != nil {
				return err
			}
			if opt.DryRun && output.document() {
				return writeObjects(s.out, opt, output)
			}
			if wait {
				opt.Wait = limit
			}
			client, err := kube.Connect(ctx, target)
			if err != nil {
				return err
			}
			begin := time.Now()
			mesh := &install.Mesh{Client: client, Say: progress(s, output)}
			report, err := mesh.Install(ctx, opt)
			return finish(s, output, report, err, func() {
				if report.DryRun {
					printPlan(s.out, report)
					return
				}
				printKept(s.out, report)
				switch {
				case report.Same():
					fmt.Fprintf(s.out, "nothing to change: Tulle %s is installed%s\n", report.Version, readiness(report))
				case report.From != "":
					fmt.Fprintf(s.out, "Tulle %s is as asked%s (%.1f s)\n", report.Version, readiness(report), time.Since(begin).Seconds())
				default:
					fmt.Fprintf(s.out, "Tulle %s is installed%s (%.1f s)\n", report.Version, readiness(report), time.Since(begin).Seconds())
					fmt.Fprintln(s.out, "take a namespace into the mesh: meshctl namespace join NAMESPACE")
				}
			})
		},
	}
	flags := cmd.Flags()
	target.Add(flags)
	values.add(flags)
	flags.BoolVar(&opt.DryRun, "dry-run", false, "change nothing: show what would change, or with -o the objects")
	flags.BoolVar(&wait, "wait", true, "wait until everything is ready")
	flags.DurationVar(&limit, "timeout", 5*time.Minute, "how long to wait")
	flags.BoolVar(&opt.ForceConflicts, "force-conflicts", false, "take fields back that somebody else has set")
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// finish writes the report, or what was told instead of it, and passes the error on.
func finish(s *streams, output outputFlag, report *install.Report, err error, tell func()) error {
	if !output.document() {
		if err == nil {
			tell()
		}
		return err
	}
	if report == nil {
		return err
	}
	return errors.Join(output.print(s.out, report, nil), err)
}

var plans = map[install.Action]string{install.Created: "create", install.Changed: "change", install.Removed: "remove", install.Kept: "keep"}

// printPlan shows a dry run.
func printPlan(w io.Writer, report *install.Report) {
	count := 0
	for _, c := range report.Changes {
		switch c.Action {
		case install.Unchanged:
			continue
		case install.Kept:
			fmt.Fprintf(w, "%-8s %s%s\n", plans[c.Action], c.Ref, note(c))
			continue
		}
		count++
		fmt.Fprintf(w, "%-8s %s%s\n", plans[c.Action], c.Ref, note(c))
		for _, f := range c.Fields {
			fmt.Fprintf(w, "           %s\n", f)
		}
	}
	if count == 0 {
		fmt.Fprintln(w, "nothing would change")
		return
	}
	fmt.Fprintf(w, "%d objects would change\n", count)
}

func printKept(w io.Writer, report *install.Report) {
	for _, c := range report.Changes {
		if c.Action == install.Kept {
			fmt.Fprintf(w, "%s kept%s\n", c.Ref, note(c))
		}
	}
}

func note(c install.Change) string {
	if c.Note == "" {
		return ""
	}
	return " (" + c.Note + ")"
}

func readiness(report *install.Report) string {
	var parts []string
	for _, c := range report.Components {
		parts = append(parts, fmt.Sprintf("%s %d/%d", c.Name, c.Ready, c.Wanted))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

func writeObjects(w io.Writer, opt install.Options, output outputFlag) error {
	objects, err := install.Objects(opt, install.DefaultNamespace)
	if err != nil {
		return err
	}
	if output == "json" {
		items := []any{}
		for _, o := range objects {
			items = append(items, o.Object)
		}
		return writeJSON(w, map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	}
	for _, o := range objects {
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "---\n%s", data); err != nil {
			return err
		}
	}
	return nil
}
