package http1_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

// tunnelled returns a dialer of streams, of one tunnel, that server serves.
func tunnelled(t testing.TB, server *http1.Server) func() net.Conn {
	t.Helper()
	a, b := pair(t)
	local := netip.MustParseAddrPort("10.0.0.1:1")
	carrier := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		s, err := r.Accept(hbone.Response{Status: 200})
		if err == nil {
			_ = server.Serve(ctx, tunnel.NewConn(s, local, local))
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = carrier.ServeConn(ctx, b, nil) })
	client, err := hbone.NewClient(a, hbone.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		wg.Wait()
	})
	return func() net.Conn {
		s, _, err := client.Open(t.Context(), hbone.Request{Authority: "10.0.0.1:80"})
		if err != nil {
			t.Fatal(err)
		}
		return tunnel.NewConn(s, local, local)
	}
}

// TestThroughTunnels checks what a stream of a tunnel does in another way than a socket.
func TestThroughTunnels(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	gone := make(chan struct{})
	server := &http1.Server{Config: http1.ServerConfig{StallTimeout: time.Minute}, Handler: func(ctx context.Context, x message.Exchange) {
		switch x.Request().Path {
		case "/wait":
			<-ctx.Done()
			close(gone)
			x.Abort(ctx.Err())
		case "/part":
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			_, _ = x.Write([]byte("part"))
			_ = x.Flush()
			x.Abort(io.ErrUnexpectedEOF)
		default:
			content, err := io.ReadAll(readerOf(x.Body()))
			if err != nil {
				t.Error(err)
			}
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			_, _ = x.Write(content)
			_ = x.Close(nil)
		}
	}}
	dial := tunnelled(t, server)

	t.Run("requests one after the other", func(t *testing.T) {
		client, _ := http1.NewClient(dial(), http1.ClientConfig{})
		defer client.Close()
		for i := range 5 {
			x, err := client.Open(t.Context(), &message.Request{Method: "POST", Authority: "a", Path: "/", Length: int64(len(large))}, false)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = x.Write(large)
				_ = x.CloseWrite(nil)
			}()
			if _, err := x.Response(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(readerOf(x.Body()))
			if err != nil || !bytes.Equal(got, large) {
				t.Errorf("%d octets, %v", len(got), err)
			}
			_ = x.Close()
			// Long enough for the watches of both sides to read, and to be joined.
			time.Sleep(time.Duration(i%2) * 250 * time.Millisecond)
		}
	})
	t.Run("the last response is whole", func(t *testing.T) {
		for _, head := range []string{"POST / HTTP/1.0\r\n", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"} {
			conn := dial()
			go func() {
				_, _ = io.WriteString(conn, head+"Content-Length: 1048576\r\n\r\n")
				_, _ = conn.Write(large)
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 OK\r\n") || len(got) < len(large) {
				t.Errorf("%d octets, %v", len(got), err)
			}
			_ = conn.Close()
		}
	})
	t.Run("a response that breaks off is not whole", func(t *testing.T) {
		for _, version := range []string{"1.0", "1.1"} {
			conn := dial()
			_, _ = io.WriteString(conn, "GET /part HTTP/"+version+"\r\nHost: a\r\n\r\n")
			if got, err := io.ReadAll(conn); err == nil {
				t.Errorf("HTTP/%s: %q passes for whole", version, got)
			}
			_ = conn.Close()
		}
	})
	t.Run("the handler is told that its client has gone, and a caller that its time is over", func(t *testing.T) {
		client, _ := http1.NewClient(dial(), http1.ClientConfig{})
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		x, err := client.Open(ctx, get("/wait"), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Response(ctx); err != context.DeadlineExceeded {
			t.Errorf("Response returns %v", err)
		}
		_ = x.Close()
		select {
		case <-gone:
		case <-time.After(bound):
			t.Error("the handler was not told")
		}
	})
}
