package variant

import (
	"context"
	"net/netip"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// Direct is plain TCP from pod to pod.
type Direct struct{}

// Name implements Variant.
func (Direct) Name() string { return "direct" }

// Start implements Variant.
func (Direct) Start(context.Context, *topology.Topology) (Running, error) {
	return Running{Addr: at(topology.ServerAddr, load.Port)}, nil
}

// Stop implements Variant.
func (Direct) Stop() {}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
