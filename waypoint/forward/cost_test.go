package forward_test

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
)

// simpleApp answers each request on a connection with the same bytes, so that all memory
// that a request takes is the waypoint's.
func simpleApp(t testing.TB, response []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				buf := make([]byte, 4<<10)
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						n = 0
						if _, err := c.Write(response); err != nil {
							return
						}
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// maxAllocations is what a request may take from the heap, with that of the test's own
// records. It took five when this was written; what is added for every request is paid
// for by every request.
const maxAllocations = 10

func TestRequestsTakeLittleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("pools forget on purpose under the race detector")
	}
	content := strings.Repeat("x", 1<<10)
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, simpleApp(t, []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nserver: app\r\ncontent-length: 1024\r\n\r\n"+content)))
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}}))

	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET /some/path?with=a&query HTTP/1.1\r\nHost: web.shop\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	buf := make([]byte, 4<<10)
	send := func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; {
			m, err := conn.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
			if head, rest, ok := bytes.Cut(buf[:n], []byte("\r\n\r\n")); ok && len(rest) == len(content) {
				if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
					t.Fatalf("%s", head)
				}
				return
			}
		}
	}
	for range 100 {
		send() // the connection to the application stands, and pools are filled
	}
	if n := testing.AllocsPerRun(500, send); n > maxAllocations {
		t.Errorf("a request takes %v allocations, more than %d", n, maxAllocations)
	} else {
		t.Logf("%v allocations", n)
	}
}
