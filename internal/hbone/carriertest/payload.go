package carriertest

import (
	"io"
	"math/rand/v2"
	"sync"
)

const (
	// transferBytes is how much a test of a transfer sends in each direction: several
	// times the largest window.
	transferBytes = 64 << 20
	// slowBytes is how much testJoinSlowSocket sends: its small steps are over long before.
	slowBytes = 16 << 20
	// chunkBytes is the size of a write: what io.Copy takes.
	chunkBytes = 32 << 10
)

// payload returns octets that nobody can guess, the same for each seed. They are
// made once: with the race detector that takes longer than sending them. Nobody
// may write to them.
func payload(seed byte) []byte { return payloads[seed]() }

var payloads = [...]func() []byte{noise(0, slowBytes), noise(1, transferBytes), noise(2, transferBytes)}

func noise(seed byte, n int) func() []byte {
	return sync.OnceValue(func() []byte {
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
		return b
	})
}

// send writes p in pieces.
func send(w io.Writer, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), chunkBytes)
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
