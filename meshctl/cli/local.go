package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/supervisor"
)

// localFlags choose which local mesh is meant.
type localFlags struct {
	stateDir, name string
	// given tells whether a flag is on the command line.
	given func(flag string) bool
}

func (f *localFlags) add(cmd *cobra.Command) {
	f.given = cmd.PersistentFlags().Changed
	cmd.PersistentFlags().StringVar(&f.stateDir, "state-dir", os.Getenv("TULLE_STATE_DIR"), "folder of the mesh's state, sockets and logs (default /var/lib/tulle/NAME, or ~/.local/state/tulle/NAME for ordinary users; environment TULLE_STATE_DIR)")
	cmd.PersistentFlags().StringVar(&f.name, "name", "default", "name of the mesh, when several run on one machine")
}

// dir is the absolute state folder. A name on the command line goes before a
// folder in the environment: `down --name b` must not end another mesh.
func (f *localFlags) dir() (string, error) {
	if f.stateDir != "" && (f.given("state-dir") || !f.given("name")) {
		return filepath.Abs(f.stateDir)
	}
	if f.name == "" || f.name != filepath.Base(f.name) || f.name[0] == '.' {
		return "", fmt.Errorf("--name %q: must be a plain name, without slashes", f.name)
	}
	return local.DefaultStateDir(f.name)
}

func (f *localFlags) open(ctx context.Context) (*local.Mesh, error) {
	dir, err := f.dir()
	if err != nil {
		return nil, err
	}
	return local.Open(ctx, dir)
}

func newLocal(s *streams) *cobra.Command {
	flags := &localFlags{}
	cmd := &cobra.Command{
		Use:   "local",
		Short: "A whole mesh on this machine: nodes and pods as network namespaces",
		Long: `Runs nodes and pods as network namespaces of this machine, from the same YAML
that Kubernetes takes, with istiod-lite, and an agent and a ztunnel per node.
Works as root, and as an ordinary user inside a user namespace.`,
		Args: noSuchCommand,
		RunE: help,
	}
	flags.add(cmd)
	cmd.AddCommand(newUp(s, flags), newExec(s, flags), newLogs(s, flags), newStatus(s, flags),
		newDown(s, flags), newCapture(s, flags), newCaptureHere(s), newSupervise(s))
	return cmd
}

// newSupervise is what `up` starts; nobody types it.
func newSupervise(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:    "supervise SETTINGS",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report := local.Report()
			err := supervise(cmd.Context(), args[0], func() {
				fmt.Fprintln(report, "ready")
				report.Close()
			})
			if err != nil {
				fmt.Fprintln(report, err)
			}
			return err
		},
	}
}

func supervise(ctx context.Context, config string, ready func()) error {
	var settings control.Settings
	if err := json.Unmarshal([]byte(config), &settings); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	log, _, err := logging.New(logging.Config{Output: os.Stderr})
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("supervise is started by `meshctl local up`, not by hand")
	}
	return supervisor.Run(ctx, settings, log.Named("supervisor"), ready)
}
