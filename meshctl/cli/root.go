package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/internal/telemetry"
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
	return 1
}

func newRoot(s *streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "meshctl",
		Short:         "Run a mesh on this machine, and see what a mesh does",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newLocal(s), newCert(s), newVersion(s))
	return root
}

func newVersion(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print meshctl's version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(s.out, telemetry.Version) },
	}
}

// noSuchCommand and help are what a command that only holds others does with a
// word that is none of them, and without any. Left to itself cobra prints help for
// both, and a script with a misspelt command believes that it succeeded.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := ""
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = fmt.Sprintf("; did you mean %q?", similar[0])
	}
	return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), hint)
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }
