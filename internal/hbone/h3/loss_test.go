package h3_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
)

// lossy loses one in fifty of the packets that it sends, and swaps as many with
// their successors.
type lossy struct {
	net.PacketConn
	mu   sync.Mutex
	rand *rand.Rand
	late []byte
}

func (l *lossy) WriteTo(b []byte, to net.Addr) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	late := l.late
	l.late = nil
	switch l.rand.IntN(50) {
	case 0:
		return len(b), nil
	case 1:
		l.late = bytes.Clone(b)
	default:
		if _, err := l.PacketConn.WriteTo(b, to); err != nil {
			return 0, err
		}
	}
	if late != nil {
		l.PacketConn.WriteTo(late, to)
	}
	return len(b), nil
}

func TestBytesSurviveLossAndReordering(t *testing.T) {
	server := serve(t, h3.ServerConfig{Handler: echo})
	udp := &lossy{PacketConn: listenUDP(t), rand: rand.New(rand.NewPCG(1, 2))}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tunnel, err := h3.Dial(ctx, udp, server.addr, clientTLS(), h3.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	var wg sync.WaitGroup
	for range 4 {
		s, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.0.0.7:80"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sent := make([]byte, 1<<20)
		rand.NewChaCha8([32]byte{1}).Read(sent)
		wg.Go(func() {
			s.Write(sent)
			s.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d bytes of %d, error %v, or they differ", len(got), len(sent), err)
			}
		})
	}
	wg.Wait()
}
