// Bench measures what the mesh costs beside its baselines, and prints a table.
//
// It re-executes itself: once into namespaces of its own (mounts, processes,
// network), so that nothing outlives it however it ends, and then as the load
// and the relay inside the pods.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/measure"
	"github.com/tulle-mesh/tulle/e2e/bench/namespace"
	"github.com/tulle-mesh/tulle/e2e/bench/variant"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		if code, ok := errors.AsType[exitCode](err); ok {
			os.Exit(int(code))
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run dispatches to the roles of this program.
func run(args []string) error {
	if len(args) > 0 {
		switch role, rest := args[0], args[1:]; {
		case role == "load" && len(rest) == 1:
			return measure.RunLoad(rest[0])
		case role == "serve" && len(rest) == 0:
			return serve()
		case role == "relay" && len(rest) == 2:
			return variant.RunRelay(rest[0], rest[1])
		case role == namespace.Role:
			opts, err := parse(rest)
			if err != nil {
				return err
			}
			return inside(opts)
		}
	}
	opts, err := parse(args)
	if err != nil {
		return err
	}
	if err := namespace.Run(args, "-bin="+opts.bin); !errors.Is(err, namespace.ErrSaid) {
		return err
	}
	return exitCode(1)
}

func serve() error {
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(load.Port)))
	if err != nil {
		return err
	}
	return load.Serve(l)
}

// options are the command line's.
type options struct {
	rounds   int
	variants []string
	bin, out string
	keepLogs string
	measure  measure.Config
}

// shortValues are what -short sets, unless the command line says otherwise.
var shortValues = map[string]string{
	"rounds": "1", "bulk": "1s", "requests": "1s", "connects": "1s", "settle": "1s", "back": "0s",
}

func parse(args []string) (options, error) {
	var o options
	var variants string
	var short bool
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 5, "how many times each variant is measured, interleaved")
	f.StringVar(&variants, "variants", "direct,relay,haproxy,tulle-h2,tulle-h3", "which variants, in this order")
	f.StringVar(&o.bin, "bin", "bin", "folder with the programs of the mesh")
	f.StringVar(&o.out, "out", "out/bench.json", "file for the results")
	f.StringVar(&o.keepLogs, "logs", "", "folder for the logs of the processes; kept when named")
	f.DurationVar(&o.measure.Bulk, "bulk", 5*time.Second, "duration of each bulk measure")
	f.DurationVar(&o.measure.Requests, "requests", 3*time.Second, "duration of each request-response measure")
	f.DurationVar(&o.measure.Connects, "connects", 3*time.Second, "duration of the measure of new connections")
	f.IntVar(&o.measure.IdleConns, "idle", 1000, "number of idle connections")
	f.DurationVar(&o.measure.Settle, "settle", 2*time.Second, "time for memory to settle before it is read")
	f.DurationVar(&o.measure.Back, "back", 60*time.Second, "time after the load of the last round when memory is read again; 0 skips that")
	f.BoolVar(&short, "short", false, "one round with short measures: a look, not a result")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, exitCode(0)
		}
		return o, exitCode(2)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if short {
		given := map[string]bool{}
		f.Visit(func(fl *flag.Flag) { given[fl.Name] = true })
		for name, value := range shortValues {
			if given[name] {
				continue
			}
			if err := f.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds %d: at least one is needed", o.rounds)
	}
	o.variants = strings.Split(variants, ",")
	return o, nil
}

// exitCode ends the program without a further message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
