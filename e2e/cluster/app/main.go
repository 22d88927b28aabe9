package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// errFailed is an outcome that is told already, by what was printed.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: app serve|get|load|hold|resolve|start|peek|stop …")
		os.Exit(2)
	}
	commands := map[string]func(context.Context, []string) error{
		"serve": serve, "get": get, "load": runLoad, "hold": runHold, "resolve": resolve,
		"start": startJob, "peek": peekJob, "stop": stopJob,
	}
	run, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "app: no command %q\n", os.Args[1])
		os.Exit(2)
	}
	err := run(ctx, os.Args[2:])
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(2)
	case errors.Is(err, errFailed):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

type usageError struct{ error }

// parse fills the flags and returns what follows them.
func parse(f *flag.FlagSet, args []string, operands int) ([]string, error) {
	if err := f.Parse(args); err != nil {
		return nil, usageError{err}
	}
	if f.NArg() != operands {
		return nil, usageError{fmt.Errorf("%s takes %d arguments, not %d", f.Name(), operands, f.NArg())}
	}
	return f.Args(), nil
}

func flags(name string) *flag.FlagSet { return flag.NewFlagSet("app "+name, flag.ContinueOnError) }

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	return e.Encode(v)
}

func resolve(ctx context.Context, args []string) error {
	operands, err := parse(flags("resolve"), args, 1)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, operands[0])
	slices.Sort(addresses)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		fmt.Println(a)
	}
	return nil
}
