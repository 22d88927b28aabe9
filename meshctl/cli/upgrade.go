package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/meshctl/install"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

func newUpgrade(s *streams) *cobra.Command {
	var (
		target kube.Flags
		values valueFlags
		opt    = install.Options{Version: telemetry.Version}
		output = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring an installed mesh to this meshctl's version",
		Long: `Changes the mesh that meshctl installed: definitions and rights first, then the
control plane, the agents and the proxies, each when the one before is ready.
Connections go on: a proxy drains when its successor on the node has taken over.

The values of the installation hold on; --values and --set change some of them.
--dry-run shows what would change. When an upgrade breaks off, the same command
goes on with it.`,
		Example: `  meshctl upgrade --dry-run
  meshctl upgrade
  meshctl upgrade --set logging.level=debug`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var err error
			if opt.Values, err = values.read(s.in); err != nil {
				return err
			}
			if opt.Wait <= 0 {
				return fmt.Errorf("--timeout %v: must be more than nothing: an upgrade waits for each component", opt.Wait)
			}
			client, err := kube.Connect(ctx, target)
			if err != nil {
				return err
			}
			begin := time.Now()
			mesh := &install.Mesh{Client: client, Say: progress(s, output)}
			report, err := mesh.Upgrade(ctx, opt)
			return finish(s, output, report, err, func() {
				switch {
				case report.DryRun:
					fmt.Fprintf(s.out, "from %s to %s\n", report.From, report.Version)
					printPlan(s.out, report)
					return
				case report.Same():
					fmt.Fprintf(s.out, "nothing to change: Tulle %s is installed%s\n", report.Version, readiness(report))
					return
				}
				printKept(s.out, report)
				if report.From == report.Version {
					fmt.Fprintf(s.out, "Tulle %s is as asked%s (%.1f s)\n", report.Version, readiness(report), time.Since(begin).Seconds())
					return
				}
				fmt.Fprintf(s.out, "upgraded from %s to %s%s (%.1f s)\n", report.From, report.Version, readiness(report), time.Since(begin).Seconds())
			})
		},
	}
	flags := cmd.Flags()
	target.Add(flags)
	values.add(flags)
	flags.BoolVar(&opt.DryRun, "dry-run", false, "change nothing: show what would change")
	flags.DurationVar(&opt.Wait, "timeout", 5*time.Minute, "how long each component may take")
	flags.BoolVar(&opt.ForceConflicts, "force-conflicts", false, "take fields back that somebody else has set")
	flags.BoolVar(&opt.Force, "force", false, "go back by a minor version, or over more than one")
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}
