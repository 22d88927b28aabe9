package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// streams are what commands read and write. They are files, because exec hands
// them on.
type streams struct {
	in       *os.File
	out, err io.Writer
	outFile  *os.File
	errFile  *os.File
}

// exitError ends meshctl with a status and no further words.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// statusError is an error with an exit status other than 1.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// exitWith is an error that ends meshctl with that status.
func exitWith(status int, format string, args ...any) error {
	return &statusError{status, fmt.Errorf(format, args...)}
}

// Run runs one command line and returns the exit status: 0, 1 for an error (it
// was written to stderr), or that of the command that `exec` ran.
func Run(ctx context.Context, args []string, stdin, stdout, stderr *os.File) int {
	root := newRoot(&streams{in: stdin, out: stdout, err: stderr, outFile: stdout, errFile: stderr})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(stderr, "meshctl: %v\n", err)
	if status := (*statusError)(nil); errors.As(err, &status) {
		return status.status
	}
	return 1
}

func newRoot(s *streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshctl",
		Short: "Run a mesh, in a cluster or on this machine, and see what it does",
		Long: `Installs the mesh in a Kubernetes cluster or runs one on this machine, says what
is wrong with it, and shows what it does and why.

Commands that look at a mesh mean the local one when it runs here, else the cluster
of the kubeconfig's current context; --context, --kubeconfig and --local choose.`,
		Args:              noSuchCommand,
		RunE:              help,
		PersistentPreRunE: noNegativeTimes,
		SilenceUsage:      true,
		SilenceErrors:     true,
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	// Its place is taken by a command that errs on shells it does not know.
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newCheck(s), newInstall(s), newUpgrade(s), newUninstall(s), newNamespace(s), newWaypoint(s), newRateLimit(s), newRoute(s), newExplain(s), newZtunnel(s), newCert(s), newLocal(s), newCompletion(s), newVersion(s))
	return root
}
