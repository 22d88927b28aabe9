package variant

import (
	"context"
	"fmt"

	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// Tulle is the mesh itself, with one of its carriers.
type Tulle struct {
	processes
	bin     string
	carrier string
}

func newTulle(c Config, carrier string) *Tulle {
	return &Tulle{processes: processes{dir: c.Dir}, bin: c.Bin, carrier: carrier}
}

// Name implements Variant.
func (t *Tulle) Name() string { return "tulle-" + t.carrier }

// Start implements Variant.
func (t *Tulle) Start(context.Context, *topology.Topology) (Running, error) {
	return Running{}, fmt.Errorf("%w: not yet", ErrMissing)
}
