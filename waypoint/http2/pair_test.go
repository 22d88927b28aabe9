package http2_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

// conns makes the two ends of one connection, client first.
type conns func(t testing.TB) (client, server net.Conn)

// tcpConns connects over the loopback.
func tcpConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// pipeConns connects in memory, without any buffer.
func pipeConns(testing.TB) (client, server net.Conn) { return net.Pipe() }

// tunnelConns connects as a waypoint is connected: by a stream of an HBONE tunnel.
func tunnelConns(t testing.TB) (client, server net.Conn) {
	t.Helper()
	under, over := tcpConns(t)
	accepted := make(chan net.Conn, 1)
	done := make(chan struct{})
	carrier := &hbone.Server{Handler: func(_ context.Context, r *hbone.ServerRequest) {
		s, err := r.Accept(hbone.Response{Status: 200})
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- tunnel.NewConn(s, netip.AddrPort{}, netip.AddrPort{})
		<-done
		_ = s.Close()
	}}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = carrier.ServeConn(ctx, over, nil) })
	dialer, err := hbone.NewClient(under, hbone.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(done)
		_ = dialer.Close()
		cancel()
		wg.Wait()
	})
	s, _, err := dialer.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:8080"})
	if err != nil {
		t.Fatal(err)
	}
	return tunnel.NewConn(s, netip.AddrPort{}, netip.AddrPort{}), <-accepted
}

// onAll runs a test over a socket, in memory, and in a tunnel, which are written to in
// different ways.
func onAll(t *testing.T, f func(t *testing.T, via conns)) {
	for name, via := range map[string]conns{"TCP": tcpConns, "Pipe": pipeConns, "Tunnel": tunnelConns} {
		t.Run(name, func(t *testing.T) { f(t, via) })
	}
}

// connect runs server on one end of a connection and a client on the other, until
// the test ends.
func connect(t testing.TB, via conns, server *http2.Server) *http2.ClientConn {
	t.Helper()
	c, s := via(t)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = server.Serve(ctx, s) })
	client, err := http2.NewClient(c, http2.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		wg.Wait()
	})
	return client
}

// handled is a server with that handler.
func handled(h message.Handler) *http2.Server { return &http2.Server{Handler: h} }

// get is a request without content.
func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "shop.example:8080", Path: path}
}

// post is a request with content of unknown length.
func post(path string) *message.Request {
	return &message.Request{Method: "POST", Scheme: "http", Authority: "shop.example:8080", Path: path, Length: -1}
}

// fetch sends a request with that content and returns the response and its content.
func fetch(t testing.TB, client message.Client, r *message.Request, content string) (*message.Response, string, message.Body) {
	t.Helper()
	x, err := client.Open(t.Context(), r, content == "")
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer func() { _ = x.Close() }()
	if content != "" {
		if _, err := io.WriteString(x, content); err != nil {
			t.Fatalf("Write: %v", err)
		}
		if err := x.CloseWrite(nil); err != nil {
			t.Fatalf("CloseWrite: %v", err)
		}
	}
	p, err := x.Response(t.Context())
	if err != nil {
		t.Fatalf("Response: %v", err)
	}
	got, err := io.ReadAll(x.Body())
	if err != nil {
		t.Fatalf("Body: %v after %d octets", err, len(got))
	}
	return p, string(got), x.Body()
}

// echo answers with the request's content.
func echo(_ context.Context, x message.Exchange) {
	if err := x.Respond(&message.Response{Status: 200, Length: x.Request().Length}, false); err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := x.Body().Read(buf)
		if n > 0 {
			if _, werr := x.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err == io.EOF {
			_ = x.Close(x.Body().Trailer())
			return
		}
		if err != nil {
			x.Abort(err)
			return
		}
		if err := x.Flush(); err != nil {
			return
		}
	}
}
