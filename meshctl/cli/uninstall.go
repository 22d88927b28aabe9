package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/install"
	"github.com/tulle-mesh/tulle/meshctl/kube"
)

func newUninstall(s *streams) *cobra.Command {
	var (
		target kube.Flags
		opt    install.UninstallOptions
		yes    bool
		output = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the mesh out of a cluster",
		Long: `Removes the mesh: the agents first, which release their pods and clean their
nodes, then the proxies, the control plane and what belonged to them. Pods go on
without a restart; their connections are plaintext from then on, and no policy
holds.

What stays: the definitions of kinds (--crds removes them when no object of theirs
is left) and the authority's key, by which a mesh installed again is the same
(--purge removes it, and the namespace).`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			client, err := kube.Connect(ctx, target)
			if err != nil {
				return err
			}
			mesh := &install.Mesh{Client: client, Say: progress(s, output)}
			if there, err := mesh.Installed(ctx); err != nil {
				return err
			} else if there && !yes && !opt.DryRun {
				if err := confirmUninstall(ctx, s, mesh); err != nil {
					return err
				}
			}
			report, err := mesh.Uninstall(ctx, opt)
			if errors.Is(err, install.ErrNotInstalled) && !output.document() {
				fmt.Fprintf(s.out, "nothing to do: %v\n", err)
				return nil
			}
			return finish(s, output, report, err, func() {
				if report.DryRun {
					printPlan(s.out, report)
					return
				}
				printKept(s.out, report)
				fmt.Fprintln(s.out, "the mesh is uninstalled")
			})
		},
	}
	flags := cmd.Flags()
	target.Add(flags)
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&opt.DryRun, "dry-run", false, "change nothing: show what would go")
	flags.BoolVar(&opt.Definitions, "crds", false, "remove the definitions of kinds that meshctl made, too")
	flags.BoolVar(&opt.Purge, "purge", false, "remove the authority's key and the namespace, too")
	flags.BoolVar(&opt.Force, "force", false, "remove definitions with the objects of their kinds; go on when an agent does not end")
	flags.DurationVar(&opt.Wait, "timeout", 2*time.Minute, "how long the pods of each component may take to end")
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// confirmUninstall asks on a terminal, and refuses to guess where nobody can answer.
func confirmUninstall(ctx context.Context, s *streams, mesh *install.Mesh) error {
	namespaces, err := mesh.Namespaces(ctx)
	if err != nil {
		return err
	}
	in := "no namespace is in it"
	if len(namespaces) > 0 {
		in = "in it are the namespaces " + strings.Join(namespaces, ", ") + ", whose connections will be plaintext"
	}
	question := fmt.Sprintf("The mesh in %s goes; %s.", clusterName(mesh.Client), in)
	if !isTerminal(s.in) {
		return fmt.Errorf("%s Add --yes to do it without being asked", question)
	}
	fmt.Fprintf(s.err, "%s Go on? [y/N] ", question)
	answer, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func clusterName(client *kube.Client) string {
	if client.Context != "" {
		return "context " + client.Context
	}
	return client.Config.Host
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	// It is a character device too.
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
