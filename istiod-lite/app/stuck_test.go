package app

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc/peer"
)

// TestAStuckClientsConnectionIsClosed finds the connection of a stream's context
// and closes it, and no other.
func TestAStuckClientsConnectionIsClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := newConnections(2)
	wrapped := conns.wrap(ln)
	defer wrapped.Close()
	dial := func() (client, server net.Conn) {
		t.Helper()
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err = wrapped.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	stuck, stuckServer := dial()
	defer stuck.Close()
	other, otherServer := dial()
	defer other.Close()

	// A third is beyond the limit and turned away.
	third, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := wrapped.Accept()
		accepted <- conn
	}()
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a connection beyond the limit was kept")
	}

	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: stuckServer.RemoteAddr()})
	conns.disconnect(ctx)
	conns.disconnect(ctx) // harmless
	conns.disconnect(context.Background())
	if _, err := stuck.Read(make([]byte, 1)); err == nil {
		t.Error("the stuck client's connection is open")
	}
	if _, err := otherServer.Write([]byte("x")); err != nil {
		t.Errorf("another connection suffered: %v", err)
	}
	// Its place is free again.
	fourth, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer fourth.Close()
	(<-accepted).Close()
	stuckServer.Close()
	otherServer.Close()
}
