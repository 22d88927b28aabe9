// Command tulle-agent is the node agent of the mesh: it takes pods in and out,
// writes the rules that capture their traffic, and tells ztunnel which pods to
// serve.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tulle-mesh/tulle/ztunnel/agent/app"
)

func main() {
	cfg, err := app.Parse(os.Args[1:], os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		err = app.Run(ctx, cfg)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tulle-agent:", err)
		os.Exit(1)
	}
}
