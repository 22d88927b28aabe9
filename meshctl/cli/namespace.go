package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/membership"
)

func newNamespace(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "namespace",
		Aliases: []string{"ns"},
		Short:   "Take namespaces into the mesh and out of it, and see which pods are in",
		Args:    noSuchCommand,
		RunE:    help,
	}
	cmd.AddCommand(newNamespaceJoin(s), newNamespaceLeave(s), newNamespaceList(s))
	return cmd
}

func newNamespaceJoin(s *streams) *cobra.Command {
	return newMembership(s, membershipCommand{
		use:   "join NAMESPACE...",
		short: "Take namespaces into the mesh",
		long: `Labels the namespaces istio.io/dataplane-mode=ambient and waits until their pods
are in the mesh. Running pods are taken in without a restart; connections that
are open go on as they were.`,
		force: "label a namespace that the cluster or the mesh itself needs to start, or one that is excluded",
		run:   membership.Join,
		done:  "joined",
	})
}

func newNamespaceLeave(s *streams) *cobra.Command {
	return newMembership(s, membershipCommand{
		use:   "leave NAMESPACE...",
		short: "Take namespaces out of the mesh",
		long: `Takes the label istio.io/dataplane-mode away and waits until the pods are out of
the mesh, without a restart. Connections that a proxy carries are drained; new
ones are plaintext. A pod with a label of its own stays.`,
		run:  membership.Leave,
		done: "left",
	})
}

type membershipCommand struct {
	use, short, long string
	// force is what --force does, empty for a command without.
	force string
	run   func(context.Context, *kube.Client, []string, membership.Options) ([]membership.Namespace, error)
	done  string
}

func newMembership(s *streams, c membershipCommand) *cobra.Command {
	var (
		target kube.Flags
		opt    membership.Options
		wait   bool
		limit  time.Duration
		output = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   c.use,
		Short: c.short,
		Long:  c.long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("name a namespace: meshctl namespace %s; `meshctl namespace list --all` shows them", c.use)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if wait {
				opt.Wait = limit
			}
			client, err := kube.Connect(ctx, target)
			if err != nil {
				return err
			}
			opt.Say = progress(s, output)
			list, err := c.run(ctx, client, args, opt)
			if list == nil {
				return err
			}
			if output.document() {
				return errors.Join(output.print(s.out, list, nil), err)
			}
			printReasons(s.out, list)
			if err == nil {
				for _, n := range list {
					fmt.Fprintf(s.out, "%s %s: %d pods in the mesh, %d pending, %d not\n", n.Name, c.done, n.In, n.Pending, n.Out)
				}
			}
			return err
		},
	}
	completeCluster(cmd, &target)
	flags := cmd.Flags()
	flags.BoolVar(&wait, "wait", true, "wait for the pods")
	flags.DurationVar(&limit, "timeout", time.Minute, "how long to wait")
	if c.force != "" {
		flags.BoolVar(&opt.Force, "force", false, c.force)
	}
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

func newNamespaceList(s *streams) *cobra.Command {
	var (
		target kube.Flags
		all    bool
		output = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:     "list [NAMESPACE...]",
		Aliases: []string{"ls"},
		Short:   "Show which namespaces and pods are in the mesh, and why others are not",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			client, err := kube.Connect(ctx, target)
			if err != nil {
				return err
			}
			list, err := membership.List(ctx, client, args...)
			if err != nil {
				return err
			}
			if len(args) == 0 && !all {
				list = concerned(list)
			}
			if output.document() {
				return output.print(s.out, list, nil)
			}
			printNamespaces(s.out, list)
			return nil
		},
	}
	completeCluster(cmd, &target)
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "A", false, "show namespaces that have nothing to do with the mesh, too")
	flags.VarP(&output, "output", "o", outputUsage)
	return cmd
}

// concerned leaves out namespaces without label and without a pod in the mesh.
func concerned(list []membership.Namespace) []membership.Namespace {
	out := []membership.Namespace{}
	for _, n := range list {
		if n.Mode != "" || n.In > 0 || n.Pending > 0 {
			out = append(out, n)
		}
	}
	return out
}

func printNamespaces(w io.Writer, list []membership.Namespace) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no namespace is in the mesh: `meshctl namespace join NAMESPACE` takes one in, --all shows all")
		return
	}
	rows := [][]string{{"NAMESPACE", "MODE", "PODS", "IN", "PENDING", "NOT"}}
	for _, n := range list {
		mode := n.Mode
		if n.Excluded {
			mode = "excluded"
		}
		rows = append(rows, []string{n.Name, mode, strconv.Itoa(len(n.Pods)), strconv.Itoa(n.In), strconv.Itoa(n.Pending), strconv.Itoa(n.Out)})
	}
	table(w, rows)
	printReasons(w, list)
}

// printReasons names the pods that one might expect to be in and that are not.
func printReasons(w io.Writer, list []membership.Namespace) {
	said := false
	for _, n := range list {
		for _, p := range n.Pods {
			if p.Why == membership.NoMesh { // is so for all alike
				if !said {
					fmt.Fprintln(w, p.Why)
				}
				said = true
				continue
			}
			if p.Why != "" && !n.Excluded {
				fmt.Fprintf(w, "%s/%s: %s, %s\n", n.Name, p.Name, p.State, p.Why)
			}
		}
	}
}
