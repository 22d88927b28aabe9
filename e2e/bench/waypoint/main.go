// Waypoint measures what a waypoint costs beside other reverse proxies, and prints a
// table.
//
// Like e2e/bench it re-executes itself: once into namespaces of its own, and then as
// the load, as the application of gRPC, and as those proxies that are code of this
// module.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/measure"
	"github.com/tulle-mesh/tulle/e2e/bench/namespace"
	"github.com/tulle-mesh/tulle/e2e/bench/plain"
)

func main() {
	err := run(os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, namespace.ErrSaid):
		os.Exit(1)
	case errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "bench-waypoint:", err)
		os.Exit(1)
	}
}

// run dispatches to the roles of this program.
func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		switch role, rest := args[0], args[1:]; {
		case role == "load" && len(rest) == 1:
			return measure.RunLoad(rest[0])
		case role == "serve-grpc" && len(rest) == 1:
			return serveGRPC(ctx, rest[0])
		case role == "reverseproxy" && len(rest) > 0 && len(rest)%3 == 0:
			return reverseProxies(ctx, rest)
		case role == "plain" && len(rest) == 1:
			var cfg plain.Config
			if err := json.Unmarshal([]byte(rest[0]), &cfg); err != nil {
				return err
			}
			return plain.Run(ctx, cfg)
		case role == namespace.Role:
			opts, err := parse(rest)
			if err != nil {
				return err
			}
			return inside(ctx, opts)
		}
	}
	opts, err := parse(args)
	if err != nil {
		return err
	}
	return namespace.Run(args, "-bin="+opts.bin, "-peers="+opts.peers)
}

// options are the command line's.
type options struct {
	rounds        int
	variants      []string
	bin, peers    string
	out, keepLogs string
	debug         string
	measure       measure.HTTPConfig
}

// shortValues are what -short sets, unless the command line says otherwise.
var shortValues = map[string]string{"rounds": "1", "closed": "1s", "rate": "1s", "settle": "200ms"}

const allVariants = "direct,nginx,haproxy,caddy,traefik,reverseproxy,waypoint,waypoint-hbone," +
	"waypoint-1-route,waypoint-100-routes,waypoint-5000-routes,waypoint-jwt,waypoint-ratelimit"

func parse(args []string) (options, error) {
	var o options
	var variants, only string
	var short bool
	f := flag.NewFlagSet("bench-waypoint", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 5, "how many times each variant is measured, interleaved")
	f.StringVar(&variants, "variants", allVariants, "which variants, in this order")
	f.StringVar(&only, "only", "", "which measures of "+strings.Join(measure.Measures, ",")+" (default: all)")
	f.StringVar(&o.bin, "bin", "bin", "folder with the programs of the mesh")
	f.StringVar(&o.peers, "peers", "bin/peers", "folder with caddy and traefik")
	f.StringVar(&o.out, "out", "out/bench-waypoint.json", "file for the results")
	f.StringVar(&o.keepLogs, "logs", "", "folder for the logs of the processes; kept when named")
	f.StringVar(&o.debug, "debug", "", "address in the waypoint's namespace where the waypoint without tunnels serves profiles")
	f.DurationVar(&o.measure.Closed, "closed", 2*time.Second, "duration of each closed loop")
	f.DurationVar(&o.measure.Rate, "rate", 3*time.Second, "duration of the open loop")
	f.IntVar(&o.measure.Idle, "idle", 1000, "number of idle connections")
	f.DurationVar(&o.measure.Settle, "settle", time.Second, "time for memory to settle before it is read")
	f.BoolVar(&short, "short", false, "one round with short measures: a look, not a result")
	if err := f.Parse(args); err != nil {
		return o, err
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
	if only != "" {
		o.measure.Only = strings.Split(only, ",")
		for _, name := range o.measure.Only {
			if !slices.Contains(measure.Measures, name) {
				return o, fmt.Errorf("-only: no measure %q", name)
			}
		}
	}
	return o, nil
}
