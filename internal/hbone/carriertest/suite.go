package carriertest

import (
	"context"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// patience bounds every wait of the suite. It is no expectation of speed.
const patience = 3 * time.Minute

// Pair is a client's tunnel to a running server.
type Pair struct {
	// Client is the client's side of the only connection.
	Client hbone.Tunnel
	// Drain drains the server as hbone.Server.Drain does.
	Drain func(ctx context.Context) error
}

// Connect starts a server that answers with h and connects a tunnel to it. It
// registers what ends both with t.Cleanup.
type Connect func(t *testing.T, h hbone.Handler) Pair

// Run runs the suite over the carrier that connect makes.
func Run(t *testing.T, connect Connect) {
	tests := []struct {
		name string
		run  func(t *testing.T, connect Connect)
	}{
		{"Echo", testEcho},
		{"HeadersArrive", testHeadersArrive},
		{"Refuse", testRefuse},
		{"ManyStreams", testManyStreams},
		{"HalfCloseByClient", testHalfCloseByClient},
		{"HalfCloseByServer", testHalfCloseByServer},
		{"ResetByClient", testResetByClient},
		{"ResetByServer", testResetByServer},
		{"OpenCancelled", testOpenCancelled},
		{"SlowReaderStallsNobody", testSlowReader},
		{"Transfer", testTransfer},
		{"DrainByServer", testDrainByServer},
		{"DrainLeavesWhatIsOnItsWay", testDrainLeavesWhatIsOnItsWay},
		{"DrainByClient", testDrainByClient},
		{"CloseBreaksStreams", testClose},
		{"JoinTransfer", testJoinTransfer},
		{"JoinHalfClose", testJoinHalfClose},
		{"JoinSocketReset", testJoinSocketReset},
		{"JoinStreamReset", testJoinStreamReset},
		{"JoinCancelled", testJoinCancelled},
		{"JoinSlowSocket", testJoinSlowSocket},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, connect) })
	}
}
