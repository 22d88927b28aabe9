// Command tulle-agent is the node agent of the mesh: it takes pods in and out,
// writes the rules that capture their traffic, and tells ztunnel which pods to
// serve. Called by a container runtime it is the mesh's CNI plugin, which asks
// the agent. "tulle-agent clean" takes a node out of the mesh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/ztunnel/agent/app"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
)

func main() {
	if cni.Called(os.Getenv) {
		os.Exit(cni.Main("CNI plugin of the Tulle mesh " + telemetry.Version))
	}
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
