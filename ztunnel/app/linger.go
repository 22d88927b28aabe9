package app

import (
	"context"
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/zds"
)

const (
	// lingerPart is the part of the drain's deadline, in quarters, that a process
	// that ends may go on to take new connections; the rest is for those.
	lingerPart = 3
	// lingerLook is the time between two looks at the connections.
	lingerLook = 50 * time.Millisecond
)

// errEnding keeps a process that ends from asking the agent for pods.
var errEnding = errors.New("ztunnel is ending")

// dialer connects to the node agent until ctx ends. The connection that there is
// then goes on: over it the agent takes pods away when a successor has them.
func (z *ztunnel) dialer(ctx context.Context) func(context.Context) (inpod.Agent, error) {
	return func(dial context.Context) (inpod.Agent, error) {
		if ctx.Err() != nil {
			return nil, errEnding
		}
		c, err := zds.Dial(dial, z.cfg.ZDSSocket)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// linger waits until the connections that there are have ended, while new ones are
// still taken: as long as this process lives Kubernetes starts no other one in its
// place, so that they would be refused for nothing. Pods that a successor has taken
// over are not among them any more. It ends before the drain's deadline, and at
// once when the process is broken.
func (p *pods) linger(background context.Context) {
	begin := time.Now()
	by := begin.Add(p.cfg.DrainDeadline)
	p.endBy.Store(&by)
	limit := time.NewTimer(p.cfg.DrainDeadline * lingerPart / 4)
	defer limit.Stop()
	ticker := time.NewTicker(lingerLook)
	defer ticker.Stop()
	for p.carriesOlder(begin) {
		select {
		case <-ticker.C:
		case <-limit.C:
			return
		case <-background.Done():
			return
		}
	}
}

func (p *pods) carriesOlder(then time.Time) bool {
	for _, x := range p.all() {
		if x.table.HasOlder(then) {
			return true
		}
	}
	return false
}
