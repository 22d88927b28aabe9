package http1_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// typicalHeader is what a service's client sends.
func typicalHeader() (h message.Header) {
	h.Add("user-agent", "Mozilla/5.0 (X11; Linux x86_64) cart/1.2")
	h.Add("accept", "application/json")
	h.Add("accept-encoding", "gzip")
	h.Add("x-request-id", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736")
	h.Add("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	h.Add("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark")
	return h
}

var kib = make([]byte, 1<<10)

func answerKiB(_ context.Context, x message.Exchange) {
	h := make(message.Header, 0, 3)
	h.Add("content-type", "application/json")
	h.Add("server", "cart")
	if err := x.Respond(&message.Response{Status: 200, Header: h, Length: int64(len(kib))}, false); err != nil {
		return
	}
	_, _ = x.Write(kib)
	_ = x.Close(nil)
}

// memory is one direction of an in-memory connection with room for what is written.
type memory struct {
	mu     sync.Mutex
	cond   sync.Cond
	data   []byte
	closed bool
}

type memoryConn struct {
	net.Conn // for what nobody calls
	in, out  *memory
}

func memoryPair() (net.Conn, net.Conn) {
	a, b := &memory{}, &memory{}
	a.cond.L, b.cond.L = &a.mu, &b.mu
	return memoryConn{in: a, out: b}, memoryConn{in: b, out: a}
}

func (c memoryConn) Read(p []byte) (int, error) {
	m := c.in
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.data) == 0 && !m.closed {
		m.cond.Wait()
	}
	if len(m.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.data)
	m.data = m.data[:copy(m.data, m.data[n:])]
	m.cond.Broadcast()
	return n, nil
}

func (c memoryConn) Write(p []byte) (int, error) {
	m := c.out
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.data) > 1<<20 && !m.closed {
		m.cond.Wait()
	}
	if m.closed {
		return 0, io.ErrClosedPipe
	}
	m.data = append(m.data, p...)
	m.cond.Broadcast()
	return len(p), nil
}

func (c memoryConn) Close() error {
	for _, m := range []*memory{c.in, c.out} {
		m.mu.Lock()
		m.closed = true
		m.cond.Broadcast()
		m.mu.Unlock()
	}
	return nil
}

// start returns a client of a server that answers by h.
func start(tb testing.TB, tcp bool, h message.Handler) *http1.ClientConn {
	tb.Helper()
	var a, b net.Conn
	if tcp {
		a, b = pair(tb)
	} else {
		a, b = memoryPair()
	}
	ended := make(chan struct{})
	go func() {
		_ = http1.Serve(context.Background(), b, http1.ServerConfig{}, h)
		close(ended)
	}()
	client, err := http1.NewClient(a, http1.ClientConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = client.Close()
		<-ended
	})
	return client
}

// roundTrip sends a request and reads its response into buf.
func roundTrip(ctx context.Context, client *http1.ClientConn, r *message.Request, buf []byte) error {
	x, err := client.Open(ctx, r, true)
	if err != nil {
		return err
	}
	defer x.Close()
	if _, err := x.Response(ctx); err != nil {
		return err
	}
	for body := x.Body(); ; {
		if _, err := body.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// BenchmarkRoundTrip is a request with a typical head, and a response of 1 KiB: client
// and server together.
func BenchmarkRoundTrip(b *testing.B) {
	for _, tcp := range []bool{false, true} {
		b.Run(fmt.Sprintf("tcp=%v", tcp), func(b *testing.B) {
			client := start(b, tcp, answerKiB)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := get("/api/v1/carts/42?full=1")
			r.Header = typicalHeader()
			buf := make([]byte, 4<<10)
			b.ReportAllocs()
			for b.Loop() {
				if err := roundTrip(ctx, client, r, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNetHTTP is BenchmarkRoundTrip with net/http's client and server.
func BenchmarkNetHTTP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Server", "cart")
		_, _ = w.Write(kib)
	})}
	ended := make(chan struct{})
	go func() {
		_ = server.Serve(l)
		close(ended)
	}()
	transport := &http.Transport{DisableCompression: true}
	defer func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-ended
	}()
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequest("GET", "http://"+l.Addr().String()+"/api/v1/carts/42?full=1", nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range typicalHeader() {
			r.Header.Set(f.Name, f.Value)
		}
		response, err := transport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
}

// BenchmarkServer is the server alone, under requests that are there already.
func BenchmarkServer(b *testing.B) {
	a, c := memoryPair()
	ended := make(chan struct{})
	go func() {
		_ = http1.Serve(context.Background(), c, http1.ServerConfig{}, answerKiB)
		close(ended)
	}()
	defer func() {
		_ = a.Close()
		<-ended
	}()
	in := []byte("GET /api/v1/carts/42?full=1 HTTP/1.1\r\nHost: cart.shop:8080\r\n")
	for _, f := range typicalHeader() {
		in = append(in, f.Name+": "+f.Value+"\r\n"...)
	}
	in = append(in, "\r\n"...)
	buf := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Write(in); err != nil {
			b.Fatal(err)
		}
		if _, err := a.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkContent is a response of 16 MiB.
func BenchmarkContent(b *testing.B) {
	const size = 16 << 20
	part := make([]byte, 64<<10)
	for _, length := range []int64{size, -1} {
		b.Run(fmt.Sprintf("length=%d", length), func(b *testing.B) {
			client := start(b, true, func(_ context.Context, x message.Exchange) {
				_ = x.Respond(&message.Response{Status: 200, Length: length}, false)
				for range size / len(part) {
					if _, err := x.Write(part); err != nil {
						return
					}
				}
				_ = x.Close(nil)
			})
			buf := make([]byte, 64<<10)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if err := roundTrip(context.Background(), client, get("/"), buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestARequestNeedsFewAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	client := start(t, false, answerKiB)
	r := get("/api/v1/carts/42?full=1")
	r.Header = typicalHeader()
	buf := make([]byte, 4<<10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	allocs := testing.AllocsPerRun(200, func() {
		if err := roundTrip(ctx, client, r, buf); err != nil {
			t.Error(err)
		}
	})
	// Of these, the handler of the test makes two: a header and a response.
	if allocs > 6 {
		t.Errorf("%v allocations", allocs)
	}
}

// BenchmarkIdle reports what a connection costs, in both ends' memory with their
// stacks, that has served one request and waits for the next.
func BenchmarkIdle(b *testing.B) {
	const n = 5000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		clients := make([]*http1.ClientConn, n)
		ends := make([]net.Conn, n)
		var wg sync.WaitGroup
		buf := make([]byte, 4<<10)
		for i := range clients {
			a, c := memoryPair()
			ends[i] = a
			wg.Go(func() { _ = http1.Serve(context.Background(), c, http1.ServerConfig{}, answerKiB) })
			clients[i], _ = http1.NewClient(a, http1.ClientConfig{})
			if err := roundTrip(context.Background(), clients[i], get("/"), buf); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/n, "heap-B/conn")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/conn")
		for _, c := range clients {
			_ = c.Close()
		}
		wg.Wait()
		runtime.KeepAlive(ends)
	}
}
