package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/meshctl/kube"
	gateways "github.com/tulle-mesh/tulle/meshctl/waypoint"
)

func newWaypoint(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "waypoint",
		Short: "Run waypoints, the proxies for requests, and see how they are",
		Long: `Runs waypoints and shows how they are. apply, generate, list, status and delete are
about Gateways of a cluster; top and tap look at the proxies, of a cluster or of the
local mesh, on which a Gateway in a file of "meshctl local up -f" starts one.`,
		Args: noSuchCommand,
		RunE: help,
	}
	cmd.AddCommand(newWaypointApply(s), newWaypointGenerate(s), newWaypointList(s), newWaypointStatus(s), newWaypointDelete(s), newWaypointTop(s), newWaypointTap(s))
	return cmd
}

// waypointFlags are those of apply and generate.
func waypointFlags(cmd *cobra.Command, o *gateways.Options) {
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", gateways.DefaultName, "name of the waypoint")
	flags.StringVar(&o.For, "for", "", "traffic that it takes: "+strings.Join(gateways.TrafficTypes, ", ")+" (default: the class's, service)")
	flags.StringVarP(&o.Revision, "revision", "r", "", "revision of the control plane")
	_ = cmd.RegisterFlagCompletionFunc("for", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return gateways.TrafficTypes, cobra.ShellCompDirectiveNoFileComp
	})
}

// waypointTarget adds the flags that say which cluster and namespace are meant.
func waypointTarget(cmd *cobra.Command, target *kube.Flags, namespace *string) {
	target.Add(cmd.Flags())
	cmd.Flags().StringVarP(namespace, "namespace", "n", "", "namespace of the waypoint (default: that of the kubeconfig's context)")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return target.Contexts(), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("namespace", clusterNamespaces(target))
}

func newWaypointApply(s *streams) *cobra.Command {
	var (
		target kube.Flags
		opt    gateways.Options
		wait   bool
		limit  time.Duration
	)
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make a waypoint, or change it",
		Long: `Writes the Gateway of a waypoint, for which the control plane runs proxies. With
--enroll-namespace the services of the namespace use it. In a cluster; on the local mesh
a Gateway in a file of "meshctl local up -f" does the same.`,
		Example: `  meshctl waypoint apply -n shop --enroll-namespace --wait
  meshctl waypoint apply -n shop --name pods --for workload`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait {
				if opt.Wait = limit; limit == 0 {
					return errors.New("--waypoint-timeout 0s: --wait needs some time")
				}
			}
			if err := cmp.Or(notEmpty(cmd, "name", "for"), opt.Check()); err != nil {
				return err
			}
			client, err := kube.Connect(cmd.Context(), target)
			if err != nil {
				return err
			}
			opt.Say = func(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
			return gateways.Apply(cmd.Context(), client, opt)
		},
	}
	waypointFlags(cmd, &opt)
	waypointTarget(cmd, &target, &opt.Namespace)
	flags := cmd.Flags()
	flags.BoolVar(&opt.Enroll, "enroll-namespace", false, "have the services of the namespace use the waypoint")
	flags.BoolVar(&opt.Overwrite, "overwrite", false, "have them use it also when they use another")
	flags.BoolVarP(&wait, "wait", "w", false, "wait until the waypoint is ready")
	flags.DurationVar(&limit, "waypoint-timeout", gateways.DefaultTimeout, "how long to wait")
	return cmd
}

func newWaypointGenerate(s *streams) *cobra.Command {
	var opt gateways.Options
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Print the Gateway of a waypoint as YAML",
		Example: `  meshctl waypoint generate -n shop > waypoint.yaml
  meshctl waypoint generate --for all | kubectl apply -n shop -f -`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(notEmpty(cmd, "name", "for"), opt.Check()); err != nil {
				return err
			}
			data, err := yaml.Marshal(gateways.Object(opt))
			if err != nil {
				return err
			}
			_, err = s.out.Write(data)
			return err
		},
	}
	waypointFlags(cmd, &opt)
	cmd.Flags().StringVarP(&opt.Namespace, "namespace", "n", "", "namespace of the waypoint (default: none, so that who applies it chooses)")
	return cmd
}

func newWaypointList(s *streams) *cobra.Command {
	var (
		target    kube.Flags
		namespace string
		all       bool
		output    = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List waypoints",
		Example: `  meshctl waypoint list -n shop
  meshctl waypoint list -A`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := namespaceFlag(cmd, namespace); err != nil {
				return err
			}
			client, err := kube.Connect(cmd.Context(), target)
			if err != nil {
				return err
			}
			if namespace == "" {
				namespace = client.Namespace
			}
			if all {
				namespace = ""
			}
			list, err := gateways.List(cmd.Context(), client, namespace)
			if err != nil {
				return err
			}
			return output.print(s.out, list, func() { printWaypoints(s.out, list, all) })
		},
	}
	waypointTarget(cmd, &target, &namespace)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "those of all namespaces")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func printWaypoints(w io.Writer, list []gateways.Waypoint, all bool) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No waypoints found.")
		return
	}
	rows := [][]string{{"NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED"}}
	if all {
		rows[0] = append([]string{"NAMESPACE"}, rows[0]...)
	}
	for _, wp := range list {
		row := []string{wp.Name, wp.Revision, wp.TrafficType, wp.Programmed}
		if all {
			row = append([]string{wp.Namespace}, row...)
		}
		rows = append(rows, row)
	}
	table(w, rows)
}

func newWaypointStatus(s *streams) *cobra.Command {
	var (
		target    kube.Flags
		namespace string
		wait      bool
		limit     time.Duration
		output    = outputFlag("table")
	)
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show the conditions of waypoints, and wait until they are ready",
		Long: `Shows the conditions of the waypoint NAME, or of all of the namespace, when they are
ready or the time is over. Exit status: 0 when all are ready, 1 when one is not.`,
		Example: `  meshctl waypoint status -n shop
  meshctl waypoint status waypoint -n shop --wait=false`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := namespaceFlag(cmd, namespace); err != nil {
				return err
			}
			client, err := kube.Connect(cmd.Context(), target)
			if err != nil {
				return err
			}
			if !wait {
				limit = 0
			}
			list, err := gateways.Status(cmd.Context(), client, namespace, args, limit)
			if list == nil {
				return err
			}
			return errors.Join(output.print(s.out, list, func() { printWaypointStatus(s.out, list) }), err)
		},
	}
	waypointTarget(cmd, &target, &namespace)
	completeGateways(cmd, &target, &namespace, 1)
	cmd.Flags().BoolVarP(&wait, "wait", "w", true, "wait until the waypoints are ready")
	cmd.Flags().DurationVar(&limit, "waypoint-timeout", gateways.DefaultTimeout, "how long to wait")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func printWaypointStatus(w io.Writer, list []gateways.Waypoint) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No waypoints found.")
		return
	}
	rows := [][]string{{"NAMESPACE", "NAME", "STATUS", "TYPE", "REASON", "MESSAGE"}}
	for _, wp := range list {
		if len(wp.Conditions) == 0 {
			rows = append(rows, []string{wp.Namespace, wp.Name, wp.Programmed, "Programmed", "", "nothing is said of it yet"})
		}
		for _, c := range wp.Conditions {
			rows = append(rows, []string{wp.Namespace, wp.Name, c.Status, c.Type, c.Reason, c.Message})
		}
	}
	table(w, rows)
}

func newWaypointDelete(s *streams) *cobra.Command {
	var (
		target    kube.Flags
		namespace string
		revision  string
		all       bool
	)
	cmd := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Remove waypoints, with all that runs for them",
		Long: `Removes the Gateways; what was made for them goes with them. Services that use a
waypoint which is not there go on without, and policies bound to it are enforced,
more strictly, by node proxies.`,
		Example: `  meshctl waypoint delete waypoint -n shop
  meshctl waypoint delete --all -n shop`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("--all: means all waypoints of the namespace; leave the names out")
			case !all && len(args) == 0:
				return errors.New("name a waypoint, or give --all: meshctl waypoint " + cmd.Use)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := namespaceFlag(cmd, namespace); err != nil {
				return err
			}
			client, err := kube.Connect(cmd.Context(), target)
			if err != nil {
				return err
			}
			gone, err := gateways.Delete(cmd.Context(), client, namespace, args, all, revision)
			if namespace == "" {
				namespace = client.Namespace
			}
			for _, name := range gone {
				fmt.Fprintf(s.out, "waypoint %s/%s deleted\n", namespace, name)
				users, failed := gateways.Users(cmd.Context(), client, namespace, name)
				if failed != nil { // who may remove it need not be allowed to look everywhere
					fmt.Fprintf(s.err, "note: what still names it is not known: %v\n", failed)
				}
				if len(users) > 0 {
					fmt.Fprintf(s.out, "note: it is still named by %s: connections go on without it, and policies bound to it or to these are enforced, more strictly, by node proxies (`meshctl explain` says what is refused)\n", some(users))
				}
			}
			if len(gone) == 0 && err == nil {
				fmt.Fprintln(s.out, "No waypoints found.")
			}
			return err
		},
	}
	waypointTarget(cmd, &target, &namespace)
	completeGateways(cmd, &target, &namespace, 0)
	cmd.Flags().BoolVar(&all, "all", false, "all waypoints of the namespace")
	cmd.Flags().StringVarP(&revision, "revision", "r", "", "only those of this revision")
	return cmd
}

// some joins names, the first of many.
func some(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
