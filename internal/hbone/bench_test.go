package hbone_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// path is a client application, two proxies that speak hbone over TLS, and a
// server application, all on the loopback and in this process.
type path struct {
	client *hbone.ClientConn
	target *net.TCPListener
}

// newPath serves accepted applications with app.
func newPath(t testing.TB, app func(net.Conn)) *path {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { app(c); _ = c.Close() })
		}
	})
	server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		sock, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		if err != nil {
			_ = r.Refuse(503)
			return
		}
		s, err := r.Accept(hbone.Response{Status: 200})
		if err != nil {
			_ = sock.Close()
			return
		}
		_ = s.Join(ctx, sock, nil)
	}}
	p := &path{client: tunnelPair(t, tlsConns, server, hbone.ClientConfig{}), target: l}
	t.Cleanup(func() { _ = l.Close(); _ = p.client.Close(); wg.Wait() })
	return p
}

// connect makes an application's connection through both proxies.
func (p *path) connect(t testing.TB) *net.TCPConn {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := p.client.Open(context.Background(), anyRequest)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Join(context.Background(), proxy, nil) }()
	return app
}

// BenchmarkBulk sends in one direction through two proxies. All parties share the
// machine's processors.
func BenchmarkBulk(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			p := newPath(b, func(c net.Conn) {
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 128<<10))
			})
			apps := make([]*net.TCPConn, streams)
			for i := range apps {
				apps[i] = p.connect(b)
			}
			chunk := make([]byte, 128<<10)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, app := range apps {
				wg.Go(func() {
					for range (b.N + streams - 1 - i) / streams {
						_, _ = app.Write(chunk)
					}
					_ = app.CloseWrite()
					_, _ = io.Copy(io.Discard, app)
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkRequest sends 1 KiB and waits for 1 KiB.
func BenchmarkRequest(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			p := newPath(b, func(c net.Conn) {
				buf := make([]byte, 1<<10)
				for {
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					_, _ = c.Write(buf)
				}
			})
			apps := make([]*net.TCPConn, streams)
			for i := range apps {
				apps[i] = p.connect(b)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, app := range apps {
				wg.Go(func() {
					buf := make([]byte, 1<<10)
					for range (b.N + streams - 1 - i) / streams {
						_, _ = app.Write(buf)
						_, _ = io.ReadFull(app, buf)
					}
					_ = app.Close()
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkOpen opens, carries one octet each way and closes, on a warm tunnel.
func BenchmarkOpen(b *testing.B) {
	p := newPath(b, func(c net.Conn) { _, _ = io.Copy(c, c) })
	b.ReportAllocs()
	for b.Loop() {
		app := p.connect(b)
		_, _ = app.Write([]byte{1})
		_, _ = io.ReadFull(app, make([]byte, 1))
		_ = app.Close()
	}
}

// BenchmarkIdle tells what an idle connection holds in both proxies and both
// applications' goroutines together; the kernel's memory is not seen here.
func BenchmarkIdle(b *testing.B) {
	const conns = 500
	p := newPath(b, func(c net.Conn) {
		var one [1]byte
		for {
			if _, err := io.ReadFull(c, one[:]); err != nil {
				return
			}
			_, _ = c.Write(one[:])
		}
	})
	for b.Loop() {
		b.StopTimer()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&before)
		var apps []net.Conn
		for range conns {
			app := p.connect(b)
			_, _ = app.Write([]byte{1})
			_, _ = io.ReadFull(app, make([]byte, 1))
			apps = append(apps, app)
		}
		b.StartTimer()
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.StopTimer()
		b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/conns, "heap-B/conn")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/conns, "stack-B/conn")
		for _, app := range apps {
			_ = app.Close()
		}
		b.StartTimer()
	}
}
