package http2_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestDrainLetsRequestsFinish(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		begun, finish := queue[bool](), make(chan struct{})
		server := handled(func(_ context.Context, x message.Exchange) {
			begun <- true
			<-finish
			_ = x.Respond(&message.Response{Status: 200, Length: 5}, false)
			_, _ = x.Write([]byte("whole"))
			_ = x.Close(nil)
		})
		c, s := via(t)
		served := make(chan error, 1)
		go func() { served <- server.Serve(context.Background(), s) }()
		client, err := http2.NewClient(c, http2.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		x, err := client.Open(t.Context(), get("/"), true)
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		server.Drain()
		server.Drain() // once more changes nothing
		close(finish)
		if p, err := x.Response(t.Context()); err != nil || p.Status != 200 {
			t.Fatalf("%+v, %v", p, err)
		}
		if got, err := io.ReadAll(x.Body()); err != nil || string(got) != "whole" {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		<-client.Done()
		if client.Usable() {
			t.Error("the client is usable")
		}
	})
}

// TestNoRequestFailsWhileServersDrain sends on and on, to a next connection when one
// takes no more.
func TestNoRequestFailsWhileServersDrain(t *testing.T) {
	var mu sync.Mutex
	var server *http2.Server
	var client *http2.ClientConn
	var serving sync.WaitGroup
	replace := func() {
		mu.Lock()
		defer mu.Unlock()
		if server != nil {
			server.Drain()
		}
		c, s := tcpConns(t)
		next := handled(echo)
		serving.Go(func() { _ = next.Serve(context.Background(), s) })
		server = next
		client, _ = http2.NewClient(c, http2.ClientConfig{})
	}
	current := func() *http2.ClientConn {
		mu.Lock()
		defer mu.Unlock()
		return client
	}
	replace()
	var stop atomic.Bool
	var senders sync.WaitGroup
	sent := 0
	for range 4 {
		senders.Go(func() {
			n := 0
			for !stop.Load() {
				x, err := current().Open(t.Context(), post("/"), false)
				if message.Unsent(err) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				_, err = x.Write([]byte("content"))
				if err == nil {
					err = x.CloseWrite(nil)
				}
				if err == nil {
					_, err = x.Response(t.Context())
				}
				if err == nil {
					var got []byte
					if got, err = io.ReadAll(x.Body()); err == nil && string(got) != "content" {
						t.Errorf("content %q", got)
					}
				}
				_ = x.Close()
				if err != nil && !message.Unsent(err) {
					t.Errorf("a request failed: %v", err)
					return
				}
				n++
			}
			mu.Lock()
			sent += n
			mu.Unlock()
		})
	}
	for range 50 {
		for before := 0; before < 20; before++ {
			fetch(t, current(), get("/"), "")
		}
		replace()
	}
	stop.Store(true)
	senders.Wait()
	server.Drain()
	serving.Wait()
	t.Logf("%d requests", sent)
}

func TestConnectionsDuringDrainAreTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := handled(hold)
		server.Drain()
		c, s := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		if err := server.Serve(context.Background(), s); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	})
}

func TestContextOfServeBreaksTheConnection(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		c, s := via(t)
		ctx, cancel := context.WithCancel(context.Background())
		begun, served := queue[bool](), make(chan error, 1)
		go func() {
			served <- http2.Serve(ctx, s, http2.ServerConfig{}, func(ctx context.Context, _ message.Exchange) {
				begun <- true
				<-ctx.Done()
			})
		}()
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		x, err := client.Open(t.Context(), get("/"), true)
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		cancel()
		if _, err := x.Response(t.Context()); err == nil {
			t.Error("there was a response")
		}
		<-served
		<-client.Done()
	})
}
