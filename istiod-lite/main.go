// Command istiod-lite is the control plane of the mesh: it reads the mesh's
// objects, serves them to the node proxies over xDS and signs certificates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tulle-mesh/tulle/internal/logging"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/istiod-lite/app"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "istiod-lite:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	cfg := config.Default()
	cfg.Environment(os.Getenv)
	fs := flag.NewFlagSet("istiod-lite", flag.ContinueOnError)
	cfg.Flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	logger, levels, err := logging.New(logging.Config{Format: cfg.LogFormat, Level: cfg.LogLevel})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a, err := app.New(cfg, app.Options{Logger: logger, Levels: levels, Version: telemetry.Version})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
