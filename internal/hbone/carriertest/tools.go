package carriertest

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// request is what tests ask for when it does not matter.
var request = hbone.Request{Authority: "10.0.0.7:8080"}

// limited returns a context that ends with the test's patience.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open opens a stream and fails the test when that fails.
func open(t *testing.T, tunnel hbone.Tunnel) hbone.Stream {
	t.Helper()
	s, _, err := tunnel.Open(limited(t), request)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

// accept is a handler's Accept; on an error it reports and returns nil.
func accept(t *testing.T, r *hbone.ServerRequest) hbone.Stream {
	s, err := r.Accept(hbone.Response{Status: 200})
	if err != nil {
		t.Errorf("Accept: %v", err)
		return nil
	}
	return s
}

// echo is a handler that sends everything back.
func echo(t *testing.T) hbone.Handler {
	return func(_ context.Context, r *hbone.ServerRequest) {
		s, err := r.Accept(hbone.Response{Status: 200})
		if err != nil {
			return
		}
		defer s.Close()
		if _, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}); err == nil {
			_ = s.CloseWrite()
		}
	}
}

// within runs f and fails the test when it takes too long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s took longer than %v", what, patience)
	}
}

// await waits for c.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen within %v", what, patience)
		panic("unreachable")
	}
}

// wantReset checks that err is a stream error with code, made by the peer or not.
func wantReset(t *testing.T, err error, code hbone.ErrCode, remote bool) {
	t.Helper()
	var se *hbone.StreamError
	if !errors.As(err, &se) || se.Code != code || se.Remote != remote {
		t.Errorf("error = %v, want reset with code %#x, remote %v", err, uint32(code), remote)
	}
}

// sockets returns the two ends of a TCP connection on the loopback.
func sockets(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// joined is a pair of applications connected by two joined sockets and a stream
// between them: client and server are the applications' ends.
type joined struct {
	client, server *net.TCPConn
	clientJoin     chan error
	serverJoin     chan error
	cancel         context.CancelFunc // of the client's Join
	stream         hbone.Stream       // the client's
}

// join connects two applications through connect's carrier.
func join(t *testing.T, connect Connect) *joined {
	t.Helper()
	j := &joined{clientJoin: make(chan error, 1), serverJoin: make(chan error, 1)}
	var proxyA, proxyB *net.TCPConn
	j.client, proxyA = sockets(t)
	j.server, proxyB = sockets(t)
	pair := connect(t, func(ctx context.Context, r *hbone.ServerRequest) {
		if s := accept(t, r); s != nil {
			j.serverJoin <- s.Join(ctx, proxyB, nil)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	j.cancel = cancel
	t.Cleanup(cancel)
	j.stream = open(t, pair.Client)
	go func() { j.clientJoin <- j.stream.Join(ctx, proxyA, nil) }()
	deadline := time.Now().Add(patience)
	_ = j.client.SetDeadline(deadline)
	_ = j.server.SetDeadline(deadline)
	return j
}
