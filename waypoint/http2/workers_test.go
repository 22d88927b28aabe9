package http2_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Handlers run on goroutines that wait for further requests, and an idle connection
// has none of them.
// workers counts the goroutines that run handlers or wait to.
func workers() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), ".(*conn).work(")
}

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
		if n := workers(); n > 0 {
			t.Errorf("%d workers before there were requests", n)
		}
		for range 3 {
			send()
			if n := workers(); n != requests {
				t.Errorf("%d workers wait for the next requests, want %d", n, requests)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := workers(); n > 0 {
			t.Errorf("%d workers after a rest", n)
		}
		send()
		_ = c.Close()
		served.Wait()
	})
}
