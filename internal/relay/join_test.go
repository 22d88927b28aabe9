package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a TCP connection on the loopback interface.
func pair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}

// joined returns a client and a server with a relay between them.
type joined struct {
	client, server *net.TCPConn
	counters       *relay.Counters
	cancel         context.CancelCauseFunc
	result         chan error
}

func join(t testing.TB) *joined {
	t.Helper()
	client, a := pair(t)
	b, server := pair(t)
	deadline := time.Now().Add(20 * time.Second)
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetDeadline(deadline)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	j := &joined{client, server, &relay.Counters{}, cancel, make(chan error, 1)}
	go func() { j.result <- relay.Join(ctx, a, b, j.counters) }()
	t.Cleanup(func() { cancel(nil) })
	return j
}

func (j *joined) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-j.result:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("Join did not return")
		return nil
	}
}

func read(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	buf := make([]byte, n)
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	return buf
}

func TestCarriesBytesAndHalfClosesBothWays(t *testing.T) {
	j := join(t)
	payload := make([]byte, 3<<20)
	rand.Read(payload)
	go func() {
		_, _ = j.client.Write(payload)
		_ = j.client.CloseWrite()
	}()
	got, err := io.ReadAll(j.server)
	if err != nil || !bytes.Equal(got, payload) {
		t.Fatalf("server got %d bytes (%v), want %d", len(got), err, len(payload))
	}
	// The client's half-close has come through, its other half still works.
	go func() {
		_, _ = j.server.Write(payload[:1<<20])
		_ = j.server.Close()
	}()
	got, err = io.ReadAll(j.client)
	if err != nil || !bytes.Equal(got, payload[:1<<20]) {
		t.Fatalf("client got %d bytes (%v)", len(got), err)
	}
	if err := j.wait(t); err != nil {
		t.Errorf("Join: %v", err)
	}
	if s, r := j.counters.Sent.Load(), j.counters.Received.Load(); s != 3<<20 || r != 1<<20 {
		t.Errorf("counted %d sent, %d received", s, r)
	}
}

func TestCountersMoveWhileTheConnectionLives(t *testing.T) {
	j := join(t)
	for i, part := range []string{"one", "three", "fifteen"} {
		before := j.counters.Sent.Load()
		_, _ = j.client.Write([]byte(part))
		read(t, j.server, len(part))
		for j.counters.Sent.Load() == before { // counted a moment after delivery
			runtime.Gosched()
		}
		if got := j.counters.Sent.Load() - before; got != uint64(len(part)) {
			t.Errorf("step %d: counted %d bytes, want %d", i, got, len(part))
		}
	}
}

func TestResetIsCarried(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(t *testing.T, j *joined)
	}{
		{"on an idle connection", func(*testing.T, *joined) {}},
		{"after the same side's half-close", func(t *testing.T, j *joined) {
			_ = j.client.CloseWrite()
			if _, err := j.server.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("half-close not carried: %v", err)
			}
		}},
		{"after the other side's half-close", func(t *testing.T, j *joined) {
			_ = j.server.CloseWrite()
			if _, err := j.client.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("half-close not carried: %v", err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := join(t)
			tc.prep(t, j)
			relay.Reset(j.client)
			err := j.wait(t)
			if err == nil || !strings.Contains(err.Error(), "first side") {
				t.Errorf("Join: %v, want a cause that names the first side", err)
			}
			var reset error
			for reset == nil { // a write discovers it where reading is over
				if _, reset = j.server.Read(make([]byte, 1)); reset == io.EOF {
					_, reset = j.server.Write([]byte("x"))
				}
			}
			if !errors.Is(reset, syscall.ECONNRESET) && !errors.Is(reset, syscall.EPIPE) {
				t.Errorf("server saw %v, want a reset", reset)
			}
		})
	}
}

// TestAnAnswerComesBeforeTheReset has a server that answers and closes without reading,
// as servers do that decline an upload: its kernel resets the connection.
func TestAnAnswerComesBeforeTheReset(t *testing.T) {
	answer := strings.Repeat("no ", 2000)
	for range 200 {
		j := join(t)
		_ = j.server.SetReadBuffer(8 << 10)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for chunk := make([]byte, 64<<10); ; {
				if _, err := j.client.Write(chunk); err != nil {
					return
				}
			}
		}()
		_ = read(t, j.server, 1)
		_, _ = j.server.Write([]byte(answer))
		_ = j.server.Close()
		if got, err := io.ReadAll(j.client); string(got) != answer {
			t.Errorf("%d of %d octets came: %v", len(got), len(answer), err)
		}
		<-sent
		if err := j.wait(t); err == nil {
			t.Error("Join returned nil after a reset")
		}
	}
}

func TestEndedContextResetsBothSides(t *testing.T) {
	j := join(t)
	why := errors.New("policy changed")
	j.cancel(why)
	if err := j.wait(t); !errors.Is(err, why) {
		t.Errorf("Join: %v, want the context's cause", err)
	}
	for name, c := range map[string]net.Conn{"client": j.client, "server": j.server} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s saw %v, want a reset", name, err)
		}
	}
}

func TestBackPressureDoesNotBuffer(t *testing.T) {
	j := join(t)
	// Nobody reads at the server: writing must block once the kernel's buffers are full.
	_ = j.client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := io.Copy(j.client, zeros{})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes, then %v", n, err)
	}
	j.cancel(nil)
	_ = j.wait(t)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestIdleConnectionsHoldNoPipes(t *testing.T) {
	var js []*joined
	before := descriptors(t)
	for range 100 {
		j := join(t)
		_, _ = j.client.Write([]byte("hello"))
		read(t, j.server, 5)
		js = append(js, j)
	}
	// Four sockets each; the pipes of the pool (at most 32, two descriptors each) on top.
	if held := descriptors(t) - before - 4*len(js); held > 64 {
		t.Errorf("%d descriptors beside the sockets of %d idle connections", held, len(js))
	}
	for _, j := range js {
		j.client.Close()
		j.server.Close()
		_ = j.wait(t)
	}
	if left := descriptors(t) - before; left > 64 {
		t.Errorf("%d descriptors left after all connections ended", left)
	}
}

func BenchmarkJoin(b *testing.B) {
	b.Run("bulk", func(b *testing.B) {
		j := join(b)
		_ = j.client.SetDeadline(time.Time{})
		_ = j.server.SetDeadline(time.Time{})
		block := make([]byte, 256<<10)
		b.SetBytes(int64(len(block)))
		b.ReportAllocs()
		b.ResetTimer()
		go func() {
			for range b.N {
				if _, err := j.client.Write(block); err != nil {
					return
				}
			}
		}()
		buf := make([]byte, 256<<10)
		for left := int64(b.N) * int64(len(block)); left > 0; {
			n, err := j.server.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			left -= int64(n)
		}
	})
	b.Run("rr-1KiB", func(b *testing.B) {
		j := join(b)
		_ = j.client.SetDeadline(time.Time{})
		_ = j.server.SetDeadline(time.Time{})
		go func() {
			buf := make([]byte, 1024)
			for {
				if _, err := io.ReadFull(j.server, buf); err != nil {
					return
				}
				_, _ = j.server.Write(buf)
			}
		}()
		buf := make([]byte, 1024)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			_, _ = j.client.Write(buf)
			if _, err := io.ReadFull(j.client, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
