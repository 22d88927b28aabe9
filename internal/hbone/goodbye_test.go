package hbone_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// socketPair is a TCP connection with little room in the kernel.
func socketPair(t *testing.T) (proxy, app *net.TCPConn) {
	t.Helper()
	a, b := tcpConns(t)
	proxy, app = a.(*net.TCPConn), b.(*net.TCPConn)
	_ = proxy.SetWriteBuffer(8 << 10)
	_ = app.SetReadBuffer(8 << 10)
	t.Cleanup(func() { _, _ = proxy.Close(), app.Close() })
	return proxy, app
}

// What a client sent and ended in order reaches a slow application also when the
// client closes its tunnel right after the last stream, as a drain does.
func TestTunnelThatEndsInOrderLeavesItsBytes(t *testing.T) {
	const size = 60_000
	proxy, app := socketPair(t)
	if err := app.CloseWrite(); err != nil { // nothing to say, all to hear
		t.Fatal(err)
	}
	joined := make(chan error, 1)
	server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		s, err := r.Accept(hbone.Response{Status: 200})
		if err == nil {
			err = s.Join(ctx, proxy, nil)
		}
		joined <- err
	}}
	client := tunnelPair(t, tlsConns, server, hbone.ClientConfig{})
	s, _, err := client.Open(t.Context(), anyRequest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, s); n != 0 || err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	client.Drain()
	<-client.Done()
	got, err := io.Copy(io.Discard, app)
	if got != size || err != nil {
		t.Errorf("the application received %d of %d bytes: %v", got, size, err)
	}
	if err := <-joined; err != nil {
		t.Errorf("Join: %v", err)
	}
}

// What a client says behind a GOAWAY with an error is read, so that the end of the
// connection is an orderly one.
func TestWhoSaysGoodbyeIsNotReset(t *testing.T) {
	for range 100 {
		c, s := tcpConns(t)
		served := serve(t, &hbone.Server{Handler: func(context.Context, *hbone.ServerRequest) {}}, s)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		f := http2.NewFramer(c, nil)
		_, _ = io.WriteString(c, http2.ClientPreface)
		_ = f.WriteSettings()
		_ = f.WriteGoAway(0, 0xff, nil)
		_ = f.WritePing(false, [8]byte{'s', 't', 'i', 'l', 'l'})
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("the connection ends with %v", err)
		}
		_ = c.Close()
		<-served
	}
}
