package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// view is one listing of what the ztunnels know of the mesh.
type view[T any] struct {
	use, short, noun string
	list             func(*mesh.Dump) []T
	// namespace and name of one thing.
	key           func(T) (namespace, name string)
	heading, wide []string
	row           func(v T, wide bool) []string
	empty         string
}

func (v view[T]) command(s *streams, t *targetFlags) *cobra.Command {
	f := &proxyFlags{target: t}
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:     v.use + " [POD]",
		Aliases: []string{strings.TrimSuffix(v.use, "s")},
		Short:   v.short,
		Args:    oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := f.choose(cmd.Context(), args)
			if err != nil {
				return err
			}
			return v.print(cmd.Context(), s, sel, f.namespace, output)
		},
	}
	if strings.HasSuffix(v.use, "ies") {
		cmd.Aliases = []string{strings.TrimSuffix(v.use, "ies") + "y"}
	}
	f.add(cmd, "show this namespace only")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func (v view[T]) print(ctx context.Context, s *streams, sel *selection, namespace string, output outputFlag) error {
	answers, failed := sel.dumps(ctx)
	if len(answers) == 0 {
		return failed
	}
	list := func(d *mesh.Dump) []T {
		all := v.list(d)
		// A named pod chose the ztunnel; its namespace is no filter.
		if namespace == "" || sel.pod != nil {
			return all
		}
		return slices.DeleteFunc(slices.Clone(all), func(x T) bool { ns, _ := v.key(x); return ns != namespace })
	}
	all := merge(answers, list, func(x T) string { ns, name := v.key(x); return ns + "\x00" + name })
	err := output.print(s.out, all, func() {
		if len(all) == 0 {
			if namespace != "" && sel.pod == nil {
				fmt.Fprintf(s.out, "no %s in namespace %s\n", v.use, namespace)
				return
			}
			fmt.Fprintln(s.out, v.empty)
			return
		}
		rows := [][]string{v.heading}
		if output.wide() {
			rows[0] = slices.Concat(v.heading, v.wide)
		}
		for _, k := range all {
			rows = append(rows, v.row(k.value, output.wide()))
		}
		table(s.out, rows)
		for _, line := range differences(answers, all, v.noun) {
			fmt.Fprintln(s.out, line)
		}
	})
	return cmp.Or(failed, err)
}

func newWorkloads(s *streams, t *targetFlags) *cobra.Command { return workloadsView.command(s, t) }

var workloadsView = view[state.WorkloadDump]{
	use: "workloads", short: "List the workloads that the ztunnels know", noun: "workload",
	list:    func(d *mesh.Dump) []state.WorkloadDump { return d.Workloads },
	key:     func(w state.WorkloadDump) (string, string) { return w.Namespace, w.Name },
	heading: []string{"NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"},
	wide:    []string{"STATUS", "IDENTITY", "SERVICES", "ALL ADDRESSES"},
	row: func(w state.WorkloadDump, wide bool) []string {
		row := []string{w.Namespace, w.Name, firstOf(w.WorkloadIPs), w.Node, waypoint(w.Waypoint), w.Protocol}
		if wide {
			identity := fmt.Sprintf("%s/ns/%s/sa/%s", cmp.Or(w.TrustDomain, "cluster.local"), w.Namespace, w.ServiceAccount)
			row = append(row, w.Status, identity, strconv.Itoa(len(w.Services)), strings.Join(w.WorkloadIPs, ","))
		}
		return row
	},
	empty: "no workloads there",
}

func newServices(s *streams, t *targetFlags) *cobra.Command { return servicesView.command(s, t) }

var servicesView = view[state.ServiceDump]{
	use: "services", short: "List the services that the ztunnels know", noun: "service",
	list:    func(d *mesh.Dump) []state.ServiceDump { return d.Services },
	key:     func(v state.ServiceDump) (string, string) { return v.Namespace, v.Name },
	heading: []string{"NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"},
	wide:    []string{"PORTS", "HOSTNAME", "ALL VIPS"},
	row: func(v state.ServiceDump, wide bool) []string {
		healthy := 0
		for _, e := range v.Endpoints {
			if e.Status == "Healthy" {
				healthy++
			}
		}
		vips := make([]string, 0, len(v.VIPs))
		for _, vip := range v.VIPs {
			// "network/address"
			_, address, _ := strings.Cut(vip, "/")
			vips = append(vips, address)
		}
		row := []string{v.Namespace, v.Name, firstOf(vips), waypoint(v.Waypoint), fmt.Sprintf("%d/%d", healthy, len(v.Endpoints))}
		if wide {
			row = append(row, portsText(v.Ports), v.Hostname, strings.Join(vips, ","))
		}
		return row
	},
	empty: "no services there",
}

func newPolicies(s *streams, t *targetFlags) *cobra.Command { return policiesView.command(s, t) }

var policiesView = view[mesh.Policy]{
	use: "policies", short: "List the policies that the ztunnels enforce", noun: "policy",
	list:    func(d *mesh.Dump) []mesh.Policy { return d.Policies },
	key:     func(p mesh.Policy) (string, string) { return p.Namespace, p.Name },
	heading: []string{"NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"},
	wide:    []string{"NOT UNDERSTOOD"},
	row: func(p mesh.Policy, wide bool) []string {
		action := p.Action
		if p.DryRun {
			action += " (dry run)"
		}
		row := []string{p.Namespace, p.Name, action, p.Scope}
		if wide {
			row = append(row, strings.Join(p.Warnings, "; "))
		}
		return row
	},
	empty: "no policies there: every connection is allowed",
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// waypoint is a waypoint's name as istioctl shows it.
func waypoint(g *state.GatewayDump) string {
	if g == nil {
		return "None"
	}
	_, name, _ := strings.Cut(g.Destination, "/")
	if host, _, ok := strings.Cut(name, "."); ok && strings.Trim(host, "0123456789") != "" {
		return host
	}
	return name
}

// portsText is "80→8080,443" in order.
func portsText(ports map[string]uint16) string {
	numbers := make([]int, 0, len(ports))
	for p := range ports {
		if n, err := strconv.Atoi(p); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	out := make([]string, 0, len(numbers))
	for _, n := range numbers {
		text := strconv.Itoa(n)
		if target := ports[text]; target != 0 && int(target) != n {
			text += fmt.Sprintf("→%d", target)
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}
