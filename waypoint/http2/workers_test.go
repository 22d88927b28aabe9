package http2_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Handlers run on goroutines that wait for further requests, and an idle connection
// has none of them.
func TestIdleConnectionsHaveNoWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipeConns(t)
		var under sync.WaitGroup
		var served sync.WaitGroup
		served.Go(func() {
			_ = http2.Serve(context.Background(), server, http2.ServerConfig{}, func(_ context.Context, x message.Exchange) {
				under.Done()
				under.Wait() // all at the same time
				if err := x.Respond(&message.Response{Status: 204}, true); err != nil {
					t.Error(err)
				}
				_ = x.Close(nil)
			})
		})
		c, err := http2.NewClient(client, http2.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		const requests = 20
		send := func() {
			under.Add(requests)
			var all sync.WaitGroup
			for range requests {
				all.Go(func() {
					x, err := c.Open(t.Context(), &message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: "/"}, true)
					if err != nil {
						t.Error(err)
						return
					}
					if r, err := x.Response(t.Context()); err != nil || r.Status != 204 {
						t.Errorf("%v, %v", r, err)
					}
					_ = x.Close()
				})
			}
			all.Wait()
			synctest.Wait()
		}
		synctest.Wait()
		idle := runtime.NumGoroutine()
		for range 3 {
			send()
			if n := runtime.NumGoroutine(); n < idle+requests {
				t.Errorf("%d goroutines, of which %d idle: none waits for the next request", n, idle)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > idle {
			t.Errorf("%d goroutines after a rest, %d before the requests", n, idle)
		}
		send()
		_ = c.Close()
		served.Wait()
	})
}
