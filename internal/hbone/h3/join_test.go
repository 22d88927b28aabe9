package h3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
	"github.com/tulle-mesh/tulle/internal/relay"
)

// joined is a connection client application - client Join - server Join -
// server application.
type joined struct {
	client, server           *net.TCPConn // the applications' ends
	clientDone, serverDone   chan error
	clientCount, serverCount relay.Counters
	cancelClient             context.CancelCauseFunc
}

func join(t *testing.T) *joined {
	t.Helper()
	j := &joined{clientDone: make(chan error, 1), serverDone: make(chan error, 1)}
	serverSock, serverApp := tcpPair(t)
	clientSock, clientApp := tcpPair(t)
	j.client, j.server = clientApp, serverApp
	server := serve(t, h3.ServerConfig{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		s, err := r.Accept(hbone.Response{})
		if err != nil {
			j.serverDone <- err
			return
		}
		j.serverDone <- s.Join(ctx, serverSock, &j.serverCount)
	}})
	tunnel := dial(t, server.addr, h3.ClientConfig{})
	s := open(t, tunnel)
	ctx, cancel := context.WithCancelCause(context.Background())
	j.cancelClient = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.clientDone <- s.Join(ctx, clientSock, &j.clientCount)
	}()
	t.Cleanup(func() {
		cancel(nil)
		<-done
		if n := tunnel.Streams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
	})
	return j
}

func TestJoinCarriesBytesAndHalfCloses(t *testing.T) {
	j := join(t)
	question := bytes.Repeat([]byte("question"), 500_000)
	answer := bytes.Repeat([]byte("answer"), 300_000)
	go func() {
		j.client.Write(question)
		j.client.CloseWrite()
	}()
	got, err := io.ReadAll(j.server)
	if err != nil || !bytes.Equal(got, question) {
		t.Fatalf("server read %d bytes of %d, error %v", len(got), len(question), err)
	}
	go func() {
		j.server.Write(answer)
		j.server.Close()
	}()
	got, err = io.ReadAll(j.client)
	if err != nil || !bytes.Equal(got, answer) {
		t.Fatalf("client read %d bytes of %d, error %v", len(got), len(answer), err)
	}
	j.client.Close()
	for _, done := range []chan error{j.clientDone, j.serverDone} {
		if err := receive(t, done, "end of Join"); err != nil {
			t.Errorf("Join = %v", err)
		}
	}
	if j.clientCount.Sent.Load() != uint64(len(question)) || j.clientCount.Received.Load() != uint64(len(answer)) ||
		j.serverCount.Sent.Load() != uint64(len(answer)) || j.serverCount.Received.Load() != uint64(len(question)) {
		t.Errorf("counted %d, %d at the client, %d, %d at the server",
			j.clientCount.Sent.Load(), j.clientCount.Received.Load(), j.serverCount.Sent.Load(), j.serverCount.Received.Load())
	}
}

func TestJoinServerSpeaksFirst(t *testing.T) {
	j := join(t)
	j.server.Write([]byte("220 hello"))
	buf := make([]byte, 9)
	if _, err := io.ReadFull(j.client, buf); err != nil || string(buf) != "220 hello" {
		t.Fatalf("client read %q, %v", buf, err)
	}
}

func TestJoinCarriesResets(t *testing.T) {
	for name, ends := range map[string]func(*joined) (from, to *net.TCPConn){
		"client to server": func(j *joined) (from, to *net.TCPConn) { return j.client, j.server },
		"server to client": func(j *joined) (from, to *net.TCPConn) { return j.server, j.client },
	} {
		t.Run(name, func(t *testing.T) {
			j := join(t)
			from, to := ends(j)
			from.SetLinger(0)
			from.Close()
			if _, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end read %v, want a reset", err)
			}
			for _, done := range []chan error{j.clientDone, j.serverDone} {
				if err := receive(t, done, "end of Join"); err == nil {
					t.Error("Join = nil after a reset")
				}
			}
		})
	}
}

func TestJoinWriteToAClosedApplicationResetsBothEnds(t *testing.T) {
	j := join(t)
	j.server.Close() // an orderly end, but nobody reads any more
	var err error
	for err == nil {
		_, err = j.client.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write = %v", err)
	}
	if err := receive(t, j.serverDone, "end of Join"); err == nil {
		t.Error("Join = nil")
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	j := join(t)
	cause := errors.New("policy changed")
	j.cancelClient(cause)
	if err := receive(t, j.clientDone, "end of Join"); err != cause {
		t.Errorf("Join = %v, want the cause", err)
	}
	for _, app := range []*net.TCPConn{j.client, j.server} {
		if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("application read %v, want a reset", err)
		}
	}
	err := receive(t, j.serverDone, "end of Join")
	se, ok := errors.AsType[*hbone.StreamError](err)
	if !ok || !se.Remote || se.Code != hbone.CodeCancel {
		t.Errorf("Join of the peer = %v", err)
	}
}
