package app

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/backoff"
)

const (
	// minAcceptPause and maxAcceptPause space attempts while the process has no
	// descriptors or memory left: the connection waits in the kernel's queue.
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// acceptAll hands every connection of ln to serve, each on a goroutine of wg,
// until ln is closed.
func acceptAll(ctx context.Context, log *zap.Logger, wg *sync.WaitGroup, ln *net.TCPListener, serve func(context.Context, *net.TCPConn)) {
	pause := backoff.New(minAcceptPause, maxAcceptPause)
	for {
		conn, err := ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("accept failed", zap.Stringer("listener", ln.Addr()), zap.Error(err))
			select {
			case <-time.After(pause.Next()):
				continue
			case <-ctx.Done():
				return
			}
		}
		pause.Reset()
		wg.Go(func() { serve(ctx, conn) })
	}
}
