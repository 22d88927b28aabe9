package load_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		load.Serve(l)
	}()
	defer func() { l.Close(); <-served }()
	for _, mode := range []load.Mode{load.Up, load.Down, load.Echo, load.Rate, load.Connect, load.Idle} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ready := false
		result, err := load.Run(ctx, load.Job{Mode: mode, Addr: l.Addr().String(), Conns: 3, RatePerSecond: 1000, Duration: 50 * time.Millisecond}, func() {
			ready = true
			cancel()
		})
		if err != nil || result.Count < 3 || result.Seconds <= 0 {
			t.Errorf("%s: %+v, %v", mode, result, err)
		}
		if bulk := mode == load.Up || mode == load.Down; bulk != (result.Bytes > 0) || ready != (mode == load.Idle) {
			t.Errorf("%s: %+v, ready %v", mode, result, ready)
		}
	}
	if _, err := load.Run(t.Context(), load.Job{Mode: "other", Conns: 1}, nil); err == nil {
		t.Error("unknown mode passed")
	}
}
