package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

func newStatus(s *streams, flags *localFlags) *cobra.Command {
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, components and pods of the local mesh",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			st, err := mesh.Status(cmd.Context())
			if err != nil {
				return err
			}
			return output.print(s.out, st, func() { printStatus(s.out, st) })
		},
	}
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

func printStatus(w io.Writer, st control.Status) {
	how := "as root"
	if st.Rootless {
		how = "without root"
	}
	fmt.Fprintf(w, "mesh %s: %d nodes, %d pods, up %s, %s, state in %s\n\n", st.Name, len(st.Nodes), len(st.Pods), since(st.Started), how, st.StateDir)
	if st.Mesh {
		rows := [][]string{{"WHERE", "COMPONENT", "STATE", "PID", "UP", "RESTARTS", "MEMORY", "CPU"}}
		row := func(where string, c control.Component) {
			rows = append(rows, []string{where, c.Name, c.State, number(c.HostPID), since(c.Started), fmt.Sprint(c.Restarts),
				fmt.Sprintf("%.0f MiB", float64(c.ResidentBytes)/(1<<20)), fmt.Sprintf("%.2f s", c.CPUSeconds)})
		}
		row("control plane", *st.ControlPlane)
		for _, n := range st.Nodes {
			for _, c := range n.Components {
				row(n.Name, c)
			}
		}
		table(w, rows)
		fmt.Fprintln(w)
	}
	rows := [][]string{{"POD", "NODE", "STATE", "MESH", "IPS", "PID", "RESTARTS"}}
	for _, p := range st.Pods {
		state := p.Phase
		if p.Phase == "Running" && !p.Ready {
			state = "NotReady"
		}
		var pids []string
		restarts := 0
		for _, c := range p.Containers {
			if c.HostPID != 0 {
				pids = append(pids, fmt.Sprint(c.HostPID))
			}
			restarts += c.Restarts
		}
		mesh := p.Mesh
		if p.Identity != "" {
			mesh = strings.TrimPrefix(p.Identity, "spiffe://")
		}
		rows = append(rows, []string{p.Namespace + "/" + p.Name, p.Node, state, mesh, strings.Join(p.IPs, ","), strings.Join(pids, ","), fmt.Sprint(restarts)})
	}
	table(w, rows)
	if len(st.Services) > 0 {
		rows = [][]string{{"SERVICE", "IPS", "PORTS", "READY"}}
		for _, s := range st.Services {
			rows = append(rows, []string{s.Namespace + "/" + s.Name, strings.Join(s.IPs, ","), strings.Join(s.Ports, ","), fmt.Sprint(s.Ready)})
		}
		fmt.Fprintln(w)
		table(w, rows)
	}
	printProblems(w, st)
}

func printProblems(w io.Writer, st control.Status) {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	component := func(where string, c control.Component) {
		if c.State != "ready" {
			add("%s %s is %s: %s", where, c.Name, c.State, c.Reason)
		}
	}
	if st.ControlPlane != nil {
		component("control plane", *st.ControlPlane)
	}
	for _, n := range st.Nodes {
		for _, c := range n.Components {
			component(n.Name, c)
		}
	}
	for _, p := range st.Pods {
		if p.Reason != "" {
			add("pod %s/%s: %s", p.Namespace, p.Name, p.Reason)
		}
		if p.OlderConnections > 0 {
			older := "1 connection is older than its membership and goes on in plaintext"
			if p.OlderConnections > 1 {
				older = fmt.Sprintf("%d connections are older than its membership and go on in plaintext", p.OlderConnections)
			}
			add("pod %s/%s: %s", p.Namespace, p.Name, older)
		}
	}
	for _, e := range st.ConfigErrors {
		add("refused by the control plane: %s", e)
	}
	lines = append(lines, st.Notes...)
	if len(lines) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// since is a duration as people say it: two units at most.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return words(time.Since(t))
}

func words(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
