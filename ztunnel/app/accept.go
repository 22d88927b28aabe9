package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
)

const (
	// minAcceptPause and maxAcceptPause space attempts while the process has no
	// descriptors or memory left: the connection waits in the kernel's queue.
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// door is a listener and what serves its connections.
type door struct {
	*net.TCPListener
	serve func(context.Context, *net.TCPConn)
	// hold holds each connection while it is served; nil where that is serve's own
	// business. Whoever begins the drain has waited for acceptAll.
	hold *lifecycle.Drain
}

// acceptAll serves every connection that comes through d, each on a goroutine of
// wg, until the listener is closed.
func acceptAll(ctx context.Context, log *zap.Logger, wg *sync.WaitGroup, d door) {
	pause := backoff.New(minAcceptPause, maxAcceptPause)
	for {
		conn, err := d.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("accept failed", zap.Stringer("listener", d.Addr()), zap.Error(err))
			select {
			case <-time.After(pause.Next()):
				continue
			case <-ctx.Done():
				return
			}
		}
		pause.Reset()
		release := func() {}
		if d.hold != nil {
			release, _ = d.hold.Hold()
		}
		wg.Go(func() {
			defer release()
			d.serve(ctx, conn)
		})
	}
}
