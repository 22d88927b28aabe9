package forward_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
)

// answering is a server of HTTP/1.1 that costs next to nothing.
func answering(b *testing.B, content int) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n" + strings.Repeat("x", content))
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf, n := make([]byte, 16<<10), 0
				for {
					k, err := conn.Read(buf[n:])
					if err != nil {
						return
					}
					if n += k; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						n = 0
						if _, err := conn.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// BenchmarkRequest is a request over two connections of HTTP/1.1 on the loopback, one
// after the other: what it allocates is the waypoint's.
func BenchmarkRequest(b *testing.B) {
	retry := &api.Retry{Attempts: 2, Codes: []uint32{503}}
	for name, table := range map[string][]*api.RouteTable{
		"the service itself": nil,
		"by a rule":          {rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Retry: retry})},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			w.service("web", apiworkload.AppProtocol_HTTP11, answering(b, 1024))
			w.routes(table...)
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			ask := []byte("GET /some/path?x=1 HTTP/1.1\r\nhost: web.shop\r\nuser-agent: bench\r\naccept: */*\r\n\r\n")
			buf := make([]byte, 16<<10)
			body := []byte(strings.Repeat("x", 1024))
			request := func() {
				if _, err := conn.Write(ask); err != nil {
					b.Fatal(err)
				}
				for n := 0; ; {
					k, err := conn.Read(buf[n:])
					if n += k; bytes.HasSuffix(buf[:n], body) {
						return
					}
					if err != nil {
						b.Fatal(err, io.ErrUnexpectedEOF)
					}
				}
			}
			request()
			b.ReportAllocs()
			for b.Loop() {
				request()
			}
		})
	}
}
