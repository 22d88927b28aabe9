package http2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// benchRequest has what a request in a mesh usually has.
func benchRequest() *message.Request {
	r := get("/api/v1/items/12345")
	r.Header = message.Header{
		{Name: "user-agent", Value: "bench/1.0"}, {Name: "accept", Value: "*/*"},
		{Name: "x-request-id", Value: "6b8cf3d2-1a51-4a8e-9d0b-7f3d5b0e2c11"},
		{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		{Name: "x-forwarded-proto", Value: "http"},
	}
	return r
}

// answerKiB is a handler with 1 KiB of content.
func answerKiB() message.Handler {
	content := bytes.Repeat([]byte("x"), 1<<10)
	head := message.Header{{Name: "content-type", Value: "text/plain"}, {Name: "server", Value: "bench"}}
	response := &message.Response{Status: 200, Header: head, Length: 1 << 10}
	buffers := sync.Pool{New: func() any { return new([2 << 10]byte) }}
	return func(_ context.Context, x message.Exchange) {
		if body := x.Body(); body != message.NoBody {
			buf := buffers.Get().(*[2 << 10]byte)
			for err := error(nil); err == nil; {
				_, err = body.Read(buf[:])
			}
			buffers.Put(buf)
		}
		if x.Respond(response, false) == nil {
			_, _ = x.Write(content)
			_ = x.Close(nil)
		}
	}
}

// exchange sends one request and reads the response.
func exchange(ctx context.Context, client *http2.ClientConn, r *message.Request, content, buf []byte) error {
	x, err := client.Open(ctx, r, content == nil)
	if err != nil {
		return err
	}
	defer func() { _ = x.Close() }()
	if content != nil {
		if _, err := x.Write(content); err != nil {
			return err
		}
		if err := x.CloseWrite(nil); err != nil {
			return err
		}
	}
	if _, err := x.Response(ctx); err != nil {
		return err
	}
	for {
		if _, err := x.Body().Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// concurrently calls f b.N times from so many goroutines.
func concurrently(b *testing.B, goroutines int, f func(buf []byte) error) {
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range goroutines {
		n := b.N / goroutines
		if i < b.N%goroutines {
			n++
		}
		wg.Go(func() {
			buf := make([]byte, 4<<10)
			for range n {
				if err := f(buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkRequests is requests of a client of ours to a server of ours over the
// loopback, and in a tunnel without TLS, with so many at once on one connection; ns and allocations are of both.
func BenchmarkRequests(b *testing.B) {
	for _, c := range []struct {
		name       string
		via        conns
		concurrent int
		content    []byte
	}{
		{"get-1", tcpConns, 1, nil},
		{"get-64", tcpConns, 64, nil},
		{"post-1", tcpConns, 1, make([]byte, 1<<10)},
		{"post-64", tcpConns, 64, make([]byte, 1<<10)},
		{"tunnel-get-1", tunnelConns, 1, nil},
		{"tunnel-get-64", tunnelConns, 64, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			client := connect(b, c.via, handled(answerKiB()))
			r := benchRequest()
			if c.content != nil {
				r.Method, r.Length = "POST", int64(len(c.content))
			}
			concurrently(b, c.concurrent, func(buf []byte) error {
				return exchange(context.Background(), client, r, c.content, buf)
			})
		})
	}
}

// BenchmarkXNet is what BenchmarkRequests does, by golang.org/x/net/http2.
func BenchmarkXNet(b *testing.B) {
	for _, concurrent := range []int{1, 64} {
		b.Run(fmt.Sprintf("get-%d", concurrent), func(b *testing.B) {
			c, s := tcpConns(b)
			content := bytes.Repeat([]byte("x"), 1<<10)
			go (&xhttp2.Server{}).ServeConn(s, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				h["Content-Type"], h["Server"], h["Content-Length"] = []string{"text/plain"}, []string{"bench"}, []string{"1024"}
				_, _ = w.Write(content)
			})})
			client, err := (&xhttp2.Transport{AllowHTTP: true, DisableCompression: true}).NewClientConn(c)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			r, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://shop.example:8080/api/v1/items/12345", nil)
			for _, f := range benchRequest().Header {
				r.Header.Set(f.Name, f.Value)
			}
			concurrently(b, concurrent, func(buf []byte) error {
				p, err := client.RoundTrip(r)
				if err != nil {
					return err
				}
				defer func() { _ = p.Body.Close() }()
				for err == nil {
					_, err = p.Body.Read(buf)
				}
				if err == io.EOF {
					return nil
				}
				return err
			})
		})
	}
}

// BenchmarkContent is one long response.
func BenchmarkContent(b *testing.B) {
	chunk := make([]byte, 32<<10)
	client := connect(b, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
		for {
			if _, err := x.Write(chunk); err != nil {
				return
			}
		}
	}))
	x, err := client.Open(context.Background(), get("/"), true)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	if _, err := x.Response(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	b.ResetTimer()
	buf := make([]byte, len(chunk))
	for range b.N {
		if _, err := io.ReadFull(x.Body(), buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleConnection tells what a server's connection holds that has answered and
// waits: memory of the heap and of stacks.
func BenchmarkIdleConnection(b *testing.B) {
	for name, via := range map[string]conns{"TCP": tcpConns, "Pipe": pipeConns} {
		b.Run(name, func(b *testing.B) {
			const n = 500
			var before, after runtime.MemStats
			hello := record(b, func(p *rawPeer) {
				p.greet()
				_ = p.request(1, true, "user-agent", "bench/1.0")
			})
			for range b.N {
				var wg sync.WaitGroup
				ctx, cancel := context.WithCancel(context.Background())
				server := handled(answerKiB())
				runtime.GC()
				runtime.ReadMemStats(&before)
				var clients []net.Conn
				buf := make([]byte, 64<<10)
				for range n {
					c, s := via(b)
					clients = append(clients, c)
					wg.Go(func() { _ = server.Serve(ctx, s) })
					wrote := make(chan bool)
					go func() { _, _ = c.Write(hello); close(wrote) }()
					for got := 0; got < 1<<10; {
						m, err := c.Read(buf)
						if err != nil {
							b.Fatal(err)
						}
						got += m
					}
					<-wrote
				}
				runtime.GC()
				runtime.GC() // empties pools
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n, "B/conn")
				cancel()
				for _, c := range clients {
					_ = c.Close()
				}
				wg.Wait()
			}
		})
	}
}
