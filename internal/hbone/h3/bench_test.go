package h3_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
	"github.com/tulle-mesh/tulle/internal/relay"
)

// benchJoin builds application - Join - QUIC - Join - application on loopback.
func benchJoin(b *testing.B) (client, server *net.TCPConn) {
	b.Helper()
	serverSock, serverApp := tcpPair(b)
	clientSock, clientApp := tcpPair(b)
	s := serve(b, h3.ServerConfig{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		if s, err := r.Accept(hbone.Response{}); err == nil {
			s.Join(ctx, serverSock, new(relay.Counters))
		}
	}})
	stream := open(b, dial(b, s.addr, h3.ClientConfig{}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		stream.Join(context.Background(), clientSock, new(relay.Counters))
	}()
	b.Cleanup(func() {
		clientApp.Close()
		serverApp.Close()
		<-done
	})
	return clientApp, serverApp
}

func BenchmarkJoinBulk(b *testing.B) {
	client, server := benchJoin(b)
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			client.Write(chunk)
		}
		client.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, server); err != nil || n != int64(b.N*len(chunk)) {
		b.Fatalf("carried %d bytes, %v", n, err)
	}
}

func BenchmarkJoinRequestResponse(b *testing.B) {
	client, server := benchJoin(b)
	buf := make([]byte, 1<<10)
	go func() {
		buf := make([]byte, 1<<10)
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				return
			}
			server.Write(buf)
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		client.Write(buf)
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	server := serve(b, h3.ServerConfig{Handler: func(_ context.Context, r *hbone.ServerRequest) {
		if s, err := r.Accept(hbone.Response{}); err == nil {
			io.Copy(io.Discard, s)
			s.CloseWrite()
		}
	}})
	tunnel := dial(b, server.addr, h3.ClientConfig{})
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s, _, err := tunnel.Open(context.Background(), hbone.Request{Authority: "10.0.0.7:80"})
		if err != nil {
			b.Fatal(fmt.Errorf("open: %w", err))
		}
		s.CloseWrite()
		io.Copy(io.Discard, s)
	}
}
