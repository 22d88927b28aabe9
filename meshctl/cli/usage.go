package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// verdict is an annotation of commands whose exit status 1 is an answer: a mistake in
// their command line ends with 2.
const verdict = "verdict"

// misused is a mistake in the command line of cmd.
func misused(cmd *cobra.Command, format string, args ...any) error {
	if cmd.Annotations[verdict] != "" {
		return exitWith(2, format, args...)
	}
	return fmt.Errorf(format, args...)
}

// noSuchCommand and help are what a command that only holds others does with a
// word that is none of them, and without any. Left to itself cobra prints help for
// both, and a script with a misspelt command believes that it succeeded.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("`%s --help` lists its commands", cmd.CommandPath())
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = fmt.Sprintf("did you mean %q?", similar[0])
	}
	return fmt.Errorf("unknown command %q for %q; %s", args[0], cmd.CommandPath(), hint)
}

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noArguments is the Args of commands that flags alone say everything to.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return misused(cmd, "%s takes no argument, and %q is one; `%[1]s --help` lists its flags", cmd.CommandPath(), args[0])
}

// oneArgument is the Args of commands that take one or none.
func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return misused(cmd, "%s takes one argument at most, and there are %d: %s", cmd.CommandPath(), len(args), cmd.UseLine())
}

// wrongFlag says of a flag that cannot be read what it should be.
func wrongFlag(cmd *cobra.Command, err error) error {
	var (
		value   *pflag.InvalidValueError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.As(err, &unknown):
		return misused(cmd, "%w; `%s --help` lists the flags", err, cmd.CommandPath())
	case errors.As(err, &value) && value.GetFlag().Value.Type() == "duration":
		return misused(cmd, "--%s %q: must be a duration, such as 30s or 5m", value.GetFlag().Name, value.GetValue())
	case errors.As(err, &value) && value.GetFlag().Value.Type() == "int":
		return misused(cmd, "--%s %q: must be a whole number", value.GetFlag().Name, value.GetValue())
	case errors.As(err, &value) && value.GetFlag().Value.Type() == new(outputFlag).Type():
		return misused(cmd, "--%s %q: must be %s", value.GetFlag().Name, value.GetValue(), outputUsage)
	case errors.As(err, &value) && value.GetFlag().Value.Type() == "uint16":
		return misused(cmd, "--%s %q: must be a port, 1 to 65535", value.GetFlag().Name, value.GetValue())
	}
	return misused(cmd, "%w", err)
}

// notEmpty refuses flags that are given without a value, as a variable of a shell that is
// not set gives them: they would mean all, or the default.
func notEmpty(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return misused(cmd, "--%s: must not be empty", name)
		}
	}
	return nil
}

// namespaceFlag refuses a --namespace that none can have.
func namespaceFlag(cmd *cobra.Command, namespace string) error {
	if namespace != "" && len(validation.IsDNS1123Label(namespace)) > 0 {
		return misused(cmd, "--namespace %q: must be the name of a namespace", namespace)
	}
	return nil
}

// noNegativeTimes refuses durations below zero, which no command can wait for.
func noNegativeTimes(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() != "duration" {
			return
		}
		if d, parsed := time.ParseDuration(f.Value.String()); parsed == nil && d < 0 {
			err = misused(cmd, "--%s %v: must not be negative", f.Name, d)
		}
	})
	return err
}
