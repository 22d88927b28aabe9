package carriertest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

func testJoinTransfer(t *testing.T, connect Connect) {
	up, down := payload(1), payload(2)
	j := join(t, connect)
	var wg sync.WaitGroup
	sending := func(c *net.TCPConn, p []byte) {
		if err := send(c, p); err != nil {
			t.Errorf("send: %v", err)
		}
		_ = c.CloseWrite()
	}
	receiving := func(c *net.TCPConn, p []byte) {
		h := sha256.New()
		n, err := io.Copy(h, c)
		if err != nil || n != transferBytes || [32]byte(h.Sum(nil)) != sha256.Sum256(p) {
			t.Errorf("received %d octets, %v, or the checksum differs", n, err)
		}
	}
	wg.Go(func() { sending(j.client, up) })
	wg.Go(func() { sending(j.server, down) })
	wg.Go(func() { receiving(j.client, down) })
	wg.Go(func() { receiving(j.server, up) })
	wg.Wait()
	for _, end := range []chan error{j.clientJoin, j.serverJoin} {
		if err := await(t, "the end of Join", end); err != nil {
			t.Errorf("Join: %v", err)
		}
	}
}

func testJoinHalfClose(t *testing.T, connect Connect) {
	j := join(t, connect)
	_, _ = j.client.Write([]byte("question"))
	_ = j.client.CloseWrite()
	if got, err := io.ReadAll(j.server); err != nil || string(got) != "question" {
		t.Fatalf("server got %q, %v", got, err)
	}
	_, _ = j.server.Write([]byte("answer"))
	_ = j.server.CloseWrite()
	if got, err := io.ReadAll(j.client); err != nil || string(got) != "answer" {
		t.Errorf("client got %q, %v", got, err)
	}
	for _, end := range []chan error{j.clientJoin, j.serverJoin} {
		if err := await(t, "the end of Join", end); err != nil {
			t.Errorf("Join: %v", err)
		}
	}
}

// wantTCPReset checks that reading c ends with a TCP reset.
func wantTCPReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a TCP reset", err)
	}
}

func testJoinSocketReset(t *testing.T, connect Connect) {
	for _, end := range []string{"client", "server", "after half-close"} {
		t.Run(end, func(t *testing.T) {
			j := join(t, connect)
			from, to := j.client, j.server
			if end == "server" {
				from, to = to, from
			}
			// The stream carries something first, so that both ends stand.
			_, _ = from.Write([]byte("x"))
			if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if end == "after half-close" {
				_ = from.CloseWrite()
				if _, err := io.ReadAll(to); err != nil {
					t.Fatal(err)
				}
			}
			_ = from.SetLinger(0)
			_ = from.Close()
			if end == "after half-close" {
				// A socket that has read the end learns of a reset when it writes.
				within(t, "the reset", func() {
					for {
						if _, err := to.Write([]byte("x")); err != nil {
							return
						}
					}
				})
			} else {
				wantTCPReset(t, to)
			}
			for _, c := range []chan error{j.clientJoin, j.serverJoin} {
				if err := await(t, "the end of Join", c); err == nil {
					t.Error("Join returned nil after a reset")
				}
			}
		})
	}
}

func testJoinStreamReset(t *testing.T, connect Connect) {
	j := join(t, connect)
	_, _ = j.client.Write([]byte("x"))
	if _, err := io.ReadFull(j.server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	j.stream.Reset(hbone.CodeCancel)
	wantTCPReset(t, j.client)
	wantTCPReset(t, j.server)
	wantReset(t, await(t, "the client's Join", j.clientJoin), hbone.CodeCancel, false)
	wantReset(t, await(t, "the server's Join", j.serverJoin), hbone.CodeCancel, true)
}

func testJoinCancelled(t *testing.T, connect Connect) {
	j := join(t, connect)
	_, _ = j.client.Write([]byte("x"))
	if _, err := io.ReadFull(j.server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	j.cancel()
	wantTCPReset(t, j.client)
	wantTCPReset(t, j.server)
	if err := await(t, "the client's Join", j.clientJoin); !errors.Is(err, context.Canceled) {
		t.Errorf("Join: %v, want the context's cause", err)
	}
	if err := await(t, "the server's Join", j.serverJoin); err == nil {
		t.Error("the server's Join returned nil")
	}
}

// testJoinSlowSocket sends to a socket that nobody reads for a while: what was sent
// arrives in full and in order afterwards, the end included.
func testJoinSlowSocket(t *testing.T, connect Connect) {
	const size = slowBytes
	payload := payload(0)
	j := join(t, connect)
	_ = j.server.SetReadBuffer(64 << 10)
	sent := make(chan error, 1)
	go func() {
		err := send(j.client, payload)
		_ = j.client.CloseWrite()
		sent <- err
	}()
	// Small steps first, so that the proxy's socket is full again and again.
	h := sha256.New()
	total := int64(0)
	for step := int64(1); total < size; step *= 2 {
		n, err := io.CopyN(h, j.server, min(step, size-total))
		total += n
		if err != nil {
			t.Fatalf("after %d octets: %v", total, err)
		}
	}
	if _, err := j.server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("end: %v, want EOF", err)
	}
	if [32]byte(h.Sum(nil)) != sha256.Sum256(payload) {
		t.Error("the checksum differs")
	}
	if err := await(t, "sending", sent); err != nil {
		t.Errorf("send: %v", err)
	}
	_ = j.server.CloseWrite()
	for _, end := range []chan error{j.clientJoin, j.serverJoin} {
		if err := await(t, "the end of Join", end); err != nil {
			t.Errorf("Join: %v", err)
		}
	}
}
