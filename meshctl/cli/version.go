package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// versionTimeout bounds the question to the mesh: the own version is the answer
// that everybody gets.
const versionTimeout = 5 * time.Second

// versions is what `meshctl version -o json` prints.
type versions struct {
	Meshctl string `json:"meshctl"`
	// Mesh says which mesh was asked, Problem why none was.
	Mesh       string             `json:"mesh,omitempty"`
	Kubernetes string             `json:"kubernetes,omitempty"`
	Components []componentVersion `json:"components,omitempty"`
	Problem    string             `json:"problem,omitempty"`
}

type componentVersion struct {
	Component string   `json:"component"`
	Version   string   `json:"version"`
	Instances int      `json:"instances"`
	Nodes     []string `json:"nodes,omitempty"`
}

func newVersion(s *streams) *cobra.Command {
	output := outputFlag("table")
	var own bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of meshctl and of the mesh",
		Args:  noArguments,
	}
	t := newTarget(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versions{Meshctl: telemetry.Version}
		if !own {
			ctx, cancel := context.WithTimeout(cmd.Context(), versionTimeout)
			defer cancel()
			if err := v.ask(ctx, t); err != nil {
				v.Problem = err.Error()
			}
		}
		return output.print(s.out, v, func() { v.write(s, output.wide()) })
	}
	cmd.Flags().BoolVar(&own, "client", false, "print meshctl's own version only")
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	return cmd
}

// ask fills in the versions of a mesh, when there is one.
func (v *versions) ask(ctx context.Context, t *targetFlags) error {
	m, err := t.open(ctx)
	if err != nil {
		return err
	}
	v.Mesh = m.String()
	if c, ok := m.(*mesh.Cluster); ok {
		v.Kubernetes = c.Client.Version.GitVersion
	}
	for _, kind := range []string{mesh.Istiod, mesh.Ztunnel, mesh.Agent} {
		all, err := m.Components(ctx, kind)
		if err != nil {
			return err
		}
		v.Components = append(v.Components, versionsOf(kind, all)...)
	}
	if len(v.Components) == 0 {
		return fmt.Errorf("no mesh is installed in %s", m)
	}
	return nil
}

// versionsOf has one entry for each version of a component, the oldest first.
func versionsOf(kind string, all []*mesh.Component) []componentVersion {
	var out []componentVersion
	for _, c := range all {
		i := slices.IndexFunc(out, func(v componentVersion) bool { return v.Version == c.Version })
		if i < 0 {
			i = len(out)
			out = append(out, componentVersion{Component: kind, Version: c.Version})
		}
		out[i].Instances++
		if c.Node != "" {
			out[i].Nodes = append(out[i].Nodes, c.Node)
		}
	}
	slices.SortFunc(out, func(a, b componentVersion) int { return cmp.Compare(a.Version, b.Version) })
	return out
}

func (v *versions) write(s *streams, wide bool) {
	rows := [][]string{{"meshctl", v.Meshctl}}
	for _, c := range v.Components {
		what := count(c.Instances, "instance")
		if wide && len(c.Nodes) > 0 {
			what = "on " + strings.Join(c.Nodes, ", ")
		}
		rows = append(rows, []string{c.Component, c.Version + " (" + what + ")"})
	}
	if v.Kubernetes != "" {
		rows = append(rows, []string{"kubernetes", v.Kubernetes})
	}
	table(s.out, rows)
	if v.Problem != "" {
		fmt.Fprintln(s.err, "no versions of a mesh: "+v.Problem)
	}
}
