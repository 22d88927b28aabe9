package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/local"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// targetFlags choose which mesh is meant: one in a cluster, or a local one.
type targetFlags struct {
	kube   kube.Flags
	local  localFlags
	here   bool
	system string
	err    func(format string, args ...any)
}

// newTarget adds the flags to a command and all below it.
func newTarget(s *streams, cmd *cobra.Command) *targetFlags {
	t := &targetFlags{err: func(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) }}
	t.kube.Add(cmd.PersistentFlags())
	t.local.add(cmd)
	cmd.PersistentFlags().BoolVar(&t.here, "local", false, "the local mesh, not a cluster")
	cmd.PersistentFlags().StringVar(&t.system, "istio-namespace", defaultSystem, "namespace of the mesh's own parts in the cluster")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return t.kube.Contexts(), cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("istio-namespace", t.completeNamespaces)
	return t
}

const defaultSystem = "istio-system"

// open finds the mesh that is meant. Flags decide; without any a local mesh that
// runs goes before the kubeconfig's cluster, since it was started on purpose.
func (t *targetFlags) open(ctx context.Context) (mesh.Mesh, error) {
	localGiven := t.here || t.local.given("name") || t.local.given("state-dir")
	switch {
	case t.kube.Given() && localGiven:
		return nil, errors.New("--kubeconfig and --context mean a cluster, --local, --name and --state-dir a local mesh: give one of both")
	case t.kube.Given():
		return t.cluster(ctx)
	case localGiven:
		m, err := t.local.open(ctx)
		if err != nil {
			return nil, err
		}
		return mesh.OnThisMachine(m), nil
	}
	m, err := t.local.open(ctx)
	switch {
	case err == nil:
		if t.kube.Configured() {
			t.err("note: this is about the local mesh that runs here; --context chooses a cluster")
		}
		return mesh.OnThisMachine(m), nil
	case t.kube.Configured() || os.Getenv("KUBECONFIG") != "":
		return t.cluster(ctx)
	case !errors.Is(err, local.ErrNotRunning):
		return nil, err
	}
	return nil, errors.New("there is no mesh to look at: no local mesh runs here (`meshctl local up -f examples/shop` starts one), and there is no kubeconfig (--kubeconfig names one)")
}

func (t *targetFlags) cluster(ctx context.Context) (*mesh.Cluster, error) {
	c, err := kube.Connect(ctx, t.kube)
	if err != nil {
		return nil, err
	}
	return mesh.InCluster(c, t.system), nil
}

// absent says what to do when a mesh has no instance of one of its parts.
func (t *targetFlags) absent(m mesh.Mesh, kind string) error {
	if m.Local() {
		return fmt.Errorf("%s has no %s: it was started with --no-mesh", m, kind)
	}
	return fmt.Errorf("no %s runs in namespace %s of %s: is the mesh installed there? `meshctl check` says what is missing, `meshctl install` installs it, --istio-namespace names another namespace", kind, t.system, m)
}
