// Command meshctl is Tulle's command line: it runs a mesh on this machine and
// shows what a mesh does. See docs/cli.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/tulle-mesh/tulle/meshctl/cli"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

func main() {
	if process.IsShim() {
		process.RunShim()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
