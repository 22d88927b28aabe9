package relay

import "time"

const (
	// farewellTime is how long what one side sent before it took nothing more may take
	// to reach the other. It is there already, unless the other is slow.
	farewellTime = time.Second

	// pipeBytes is the capacity asked for each pipe and so the most that one pair of
	// system calls moves. BenchmarkJoin/bulk on two cores: 1.9 GB/s with 64 KiB (the
	// kernel's default for a pipe), 2.7 with 256 KiB, 1.1 with 1 MiB, where sender
	// and receiver wait for each other's turn.
	pipeBytes = 256 << 10
	// maxFreePipes bounds the pipes kept for reuse (two descriptors each, some KiB
	// of kernel memory while empty). More are in use only while more sockets have
	// bytes in flight.
	maxFreePipes = 32
)
