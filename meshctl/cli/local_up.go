package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

func newUp(s *streams, flags *localFlags) *cobra.Command {
	var (
		files       []string
		nodes       int
		timeout     time.Duration
		binDir      string
		trustDomain string
		ztunnelArgs []string
		logLevel    string
		noMesh      bool
	)
	cmd := &cobra.Command{
		Use:   "up -f FILE|DIR [-f FILE|DIR]...",
		Short: "Make the local mesh as the files say",
		Long: `Starts the mesh when it does not run, and makes it as the files say: what is new
is started, what differs is changed, what is no longer there is removed. Doing it
twice changes nothing. An object in a later -f replaces the one of the same name
in an earlier -f, so that a change can be a small file of its own.`,
		Example: `  meshctl local up -f examples/shop
  meshctl local up -f examples/shop -f examples/shop/steps/1-ambient.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if len(files) == 0 {
				return errors.New("say with -f which files to run; to try it: meshctl local up -f examples/shop")
			}
			if nodes < 1 || nodes > plan.MaxNodes {
				return fmt.Errorf("--nodes %d: must be 1 to %d", nodes, plan.MaxNodes)
			}
			docs, err := manifest.Read(files)
			if err != nil {
				return err
			}
			if len(docs) == 0 {
				// A file that came out empty by mistake would remove everything.
				return fmt.Errorf("no object in %s; `meshctl local down` ends the mesh", strings.Join(files, ", "))
			}
			// Mistakes show before anything is started.
			if _, err := manifest.Parse(docs); err != nil {
				return err
			}
			dir, err := flags.dir()
			if err != nil {
				return err
			}
			if binDir == "" {
				self, err := os.Executable()
				if err != nil {
					return fmt.Errorf("%w; say with --bin-dir where the mesh's programs are", err)
				}
				binDir = filepath.Dir(self)
			}
			if binDir, err = filepath.Abs(binDir); err != nil {
				return err
			}
			wanted := control.Settings{
				Name: flags.name, StateDir: dir, BinDir: binDir, Nodes: nodes, NoMesh: noMesh,
				TrustDomain: trustDomain, ZtunnelArgs: ztunnelArgs, LogLevel: logLevel, Version: telemetry.Version,
			}
			mesh, started, err := local.Start(ctx, wanted)
			if err != nil {
				return err
			}
			if !started {
				st, err := mesh.Status(ctx)
				if err != nil {
					return err
				}
				if err := fixed(st, wanted, cmd.Flags().Changed); err != nil {
					return err
				}
			}
			if started {
				fmt.Fprintf(s.out, "mesh started with %d nodes (state in %s)\n", nodes, dir)
			}
			asked := 0
			if cmd.Flags().Changed("nodes") {
				asked = nodes
			}
			begin := time.Now()
			changed, err := mesh.Apply(ctx, docs, asked, timeout.Seconds(), func(text string) { fmt.Fprintln(s.out, text) })
			if err != nil {
				return err
			}
			if changed == 0 && !started {
				fmt.Fprintln(s.out, "nothing to change")
				return nil
			}
			if timeout > 0 {
				fmt.Fprintf(s.out, "everything runs (%.1f s)\n", time.Since(begin).Seconds())
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "YAML `FILE`, or folder of YAML files (not its sub-folders); repeatable")
	f.IntVar(&nodes, "nodes", 2, "number of nodes; fixed while the mesh runs")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait until everything runs; 0 does not wait")
	f.StringVar(&binDir, "bin-dir", "", "folder of istiod-lite, ztunnel and tulle-agent, and first in the PATH of pods (default: meshctl's own)")
	f.StringVar(&trustDomain, "trust-domain", "cluster.local", "trust domain of the mesh's identities")
	f.StringArrayVar(&ztunnelArgs, "ztunnel-arg", nil, "further `ARGUMENT` for every ztunnel, such as --ztunnel-arg=--carrier=h3; repeatable")
	f.StringVar(&logLevel, "log-level", "", "log level of the mesh's components")
	f.BoolVar(&noMesh, "no-mesh", false, "run pods, services and names only, without control plane and proxies")
	return cmd
}

// fixed refuses flags that ask for another mesh than the one that runs: they hold
// from its start to its end, and passing them over in silence would leave the
// caller with a mesh that is not what the command line says.
func fixed(running control.Status, wanted control.Settings, given func(flag string) bool) error {
	var errs []error
	for _, f := range []struct {
		flag       string
		has, asked any
		same       bool
	}{
		{"name", running.Name, wanted.Name, running.Name == wanted.Name},
		{"no-mesh", !running.Mesh, wanted.NoMesh, running.Mesh != wanted.NoMesh},
		{"bin-dir", running.BinDir, wanted.BinDir, running.BinDir == wanted.BinDir},
		{"trust-domain", running.TrustDomain, wanted.TrustDomain, running.TrustDomain == wanted.TrustDomain},
		{"ztunnel-arg", running.ZtunnelArgs, wanted.ZtunnelArgs, slices.Equal(running.ZtunnelArgs, wanted.ZtunnelArgs)},
		{"log-level", running.LogLevel, wanted.LogLevel, running.LogLevel == wanted.LogLevel},
	} {
		if given(f.flag) && !f.same {
			errs = append(errs, fmt.Errorf("--%s: the mesh was started with %q and was asked for %q: this is fixed while it runs; `meshctl local down` first", f.flag, fmt.Sprint(f.has), fmt.Sprint(f.asked)))
		}
	}
	return errors.Join(errs...)
}

func newDown(s *streams, flags *localFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the local mesh and remove everything of it",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := flags.dir()
			if err != nil {
				return err
			}
			err = local.Down(cmd.Context(), dir, func(text string) { fmt.Fprintln(s.out, text) })
			if errors.Is(err, local.ErrNotRunning) {
				fmt.Fprintf(s.out, "nothing to do: %v\n", err)
				return nil
			}
			if err == nil {
				fmt.Fprintln(s.out, "down")
			}
			return err
		},
	}
}
