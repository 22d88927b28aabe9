package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestResponses(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name, in, want string
		answer         func(x message.Exchange) error
	}{
		{"length", get, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nab", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 200, Header: field("x-a", "1"), Length: 2}, false)
			_, _ = x.Write([]byte("a"))
			_, _ = x.Write([]byte("b"))
			return x.Close(nil)
		}},
		{"chunked, with trailers", get, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nx-t: 1\r\n\r\n",
			func(x message.Exchange) error {
				_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
				_, _ = x.Write([]byte("a"))
				_, _ = x.Write(nil)
				_ = x.Flush()
				_, _ = x.Write([]byte("bc"))
				return x.Close(field("x-t", "1"))
			}},
		{"end", get, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 404, Length: 77}, true)
			return x.Close(nil)
		}},
		{"no content", get, "HTTP/1.1 204 No Content\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 204}, true)
			return x.Close(nil)
		}},
		{"not modified", get, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 304, Length: 5}, true)
			return x.Close(nil)
		}},
		{"not modified, of unknown length", get, "HTTP/1.1 304 Not Modified\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 304}, true)
			return x.Close(nil)
		}},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 200, Length: 5}, false)
			_, _ = x.Write([]byte("abcde"))
			return x.Close(nil)
		}},
		{"HEAD without length", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, true)
			return x.Close(nil)
		}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab", func(x message.Exchange) error {
			_ = x.Inform(&message.Response{Status: 103})
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			_, _ = x.Write([]byte("ab"))
			return x.Close(field("x-t", "1"))
		}},
		{"close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 299 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
			func(x message.Exchange) error { return respond(x, 299, "") }},
		{"interim", get, "HTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", func(x message.Exchange) error {
			_ = x.Inform(&message.Response{Status: 103, Header: field("link", "b")})
			return respond(x, 200, "")
		}},
		{"fields that frame", get, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", func(x message.Exchange) error {
			h := field("content-length", "5")
			h.Add("transfer-encoding", "chunked")
			h.Add("connection", "close")
			h.Add("upgrade", "h2c")
			_ = x.Respond(&message.Response{Status: 200, Header: h}, true)
			return x.Close(nil)
		}},
		{"a value with a line break", get, "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", func(x message.Exchange) error {
			for _, h := range []message.Header{
				field("x", "a\r\nset-cookie: b"), field("x", "a\nb"), field("x", "a\rb"), field("x", "\x00"),
				field("x\r\ny", "a"), field("x: y", "a"), field("", "a"), field("X", "a"),
			} {
				if err := x.Respond(&message.Response{Status: 200, Header: h}, true); err == nil {
					t.Errorf("%v is sent", h)
				}
			}
			return respond(x, 500, "")
		}},
		{"own date", get, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", func(x message.Exchange) error {
			_ = x.Respond(&message.Response{Status: 200, Header: field("date", "x")}, true)
			return x.Close(nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
				if err := c.answer(x); err != nil {
					t.Error(err)
				}
			}}
			got, err := exchangeRaw(t, s, c.in)
			if err != nil {
				t.Error(err)
			}
			if n := strings.Count(got, "\r\ndate: "); n != 1 {
				t.Errorf("%d dates in %q", n, got)
			}
			if got = undated(got); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestUnfinishedResponsesAreNotWhole(t *testing.T) {
	for name, answer := range map[string]func(x message.Exchange){
		"nothing":  func(message.Exchange) {},
		"no close": func(x message.Exchange) { _ = x.Respond(&message.Response{Status: 200, Length: -1}, false) },
		"too little": func(x message.Exchange) {
			_ = x.Respond(&message.Response{Status: 200, Length: 2}, false)
			_, _ = x.Write([]byte("a"))
			if err := x.Close(nil); err == nil {
				t.Error("closed in order")
			}
		},
		"too much": func(x message.Exchange) {
			_ = x.Respond(&message.Response{Status: 200, Length: 2}, false)
			if _, err := x.Write([]byte("abc")); err == nil {
				t.Error("written")
			}
			if err := x.Close(nil); err == nil {
				t.Error("closed in order")
			}
		},
		"aborted": func(x message.Exchange) {
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			_, _ = x.Write([]byte("abc"))
			_ = x.Flush()
			x.Abort(&message.ResetError{Code: 8})
		},
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
			t.Run(name+" "+version, func(t *testing.T) {
				client, result := serve(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) { answer(x) }})
				_, _ = io.WriteString(client, "GET / "+version+"\r\nHost: a\r\n\r\n")
				response, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err == nil {
					if _, err = io.ReadAll(response.Body); err == nil {
						t.Error("the client takes it as whole")
					}
				}
				if err := <-result; err == nil {
					t.Error("Serve returns nil")
				}
			})
		}
	}
}

func TestContentOfAllSizes(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		for _, chunked := range []bool{true, false} {
			for _, size := range []int{1, 1000, 4 << 10, 16<<10 - 1, 16 << 10, 64<<10 - 1, 64 << 10, 1 << 20} {
				want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
					got, err := io.ReadAll(readerOf(x.Body()))
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("read %d octets of %d, %v", len(got), size, err)
					}
					length := int64(size)
					if chunked {
						length = -1
					}
					_ = x.Respond(&message.Response{Status: 200, Length: length}, false)
					for rest := want; len(rest) > 0; {
						n, err := x.Write(rest[:min(len(rest), 40_000)])
						if err != nil {
							t.Error(err)
							break
						}
						rest = rest[n:]
					}
					if err := x.Close(nil); err != nil {
						t.Error(err)
					}
				}}
				var client net.Conn
				if tcp {
					client, _ = serve(t, s)
				} else {
					a, b := net.Pipe()
					client = a
					ended := make(chan struct{})
					go func() {
						_ = s.Serve(context.Background(), b)
						close(ended)
					}()
					t.Cleanup(func() { _ = a.Close(); <-ended })
				}
				request, _ := http.NewRequest("POST", "http://a/", bytes.NewReader(want))
				if chunked {
					request.ContentLength = -1
				}
				go func() { _ = request.Write(client) }()
				response, err := http.ReadResponse(bufio.NewReader(client), request)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(response.Body)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d octets, chunked %v: got %d, %v", size, chunked, len(got), err)
				}
				_ = client.Close()
			}
		}
	}
}

func TestContentInPiecesOfAllSizes(t *testing.T) {
	const size = 300_000
	want := bytes.Repeat([]byte("0123456789"), size/10)
	for _, tcp := range []bool{true, false} {
		for _, length := range []int64{size, -1} {
			for _, piece := range []int{1, 3, 7, 4095, 16<<10 - 5, 16 << 10, 65_526, 65_527, 65_528, 65_536, 65_537, 100_000} {
				client := start(t, tcp, func(_ context.Context, x message.Exchange) {
					_ = x.Respond(&message.Response{Status: 200, Length: length}, false)
					for rest := want; len(rest) > 0; {
						n, err := x.Write(rest[:min(piece, len(rest))])
						if err != nil {
							t.Errorf("write: %v", err)
							return
						}
						rest = rest[n:]
					}
					if err := x.Close(nil); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				x, err := client.Open(t.Context(), get("/"), true)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := x.Response(t.Context()); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(readerOf(x.Body()))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("pieces of %d, length %d, TCP %v: %d octets, %v", piece, length, tcp, len(got), err)
				}
				_ = x.Close()
				_ = client.Close()
			}
		}
	}
}

func TestContinue(t *testing.T) {
	in := "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
	t.Run("is sent when the content is read", func(t *testing.T) {
		client, _ := serve(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			if !x.Request().ExpectContinue {
				t.Error("not expected")
			}
			_ = respond(x, 200, describe(x))
		}})
		_, _ = io.WriteString(client, in)
		if got := readHead(t, client); got != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("got %q", got)
		}
		_, _ = io.WriteString(client, "abc")
		if got := readHead(t, client); !strings.HasPrefix(got, "HTTP/1.1 200 ") || strings.Contains(got, "close") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("is not sent twice", func(t *testing.T) {
		got, _ := exchangeRaw(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			for range 2 {
				if err := x.Inform(&message.Response{Status: 100}); err != nil {
					t.Error(err)
				}
			}
			_ = respond(x, 200, describe(x))
		}}, in+"abc")
		if n := strings.Count(got, "HTTP/1.1 100 "); n != 1 {
			t.Errorf("%d times in %q", n, got)
		}
	})
	t.Run("without it the connection ends", func(t *testing.T) {
		got, _ := exchangeRaw(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			_ = respond(x, 403, "")
		}}, in+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if strings.Count(got, "HTTP/1.1") != 1 || !strings.Contains(got, "connection: close") {
			t.Errorf("got %q", got)
		}
	})
}

func TestContentThatNobodyRead(t *testing.T) {
	next := "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name, in string
		answers  int
	}{
		{"little", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde" + next, 2},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + next, 2},
		{"wrongly chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdef\r\n0\r\n\r\n" + next, 1},
		{"much", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("a", 1000000) + next, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, _ := serve(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) { _ = respond(x, 200, "") }})
			go func() { _, _ = io.WriteString(client, c.in) }()
			_ = client.SetReadDeadline(time.Now().Add(bound))
			var got strings.Builder
			buf := make([]byte, 1000)
			for strings.Count(got.String(), "HTTP/1.1 200 OK") < c.answers {
				n, err := client.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					t.Fatalf("%v after %q", err, got.String())
				}
			}
			if c.answers == 1 {
				for {
					n, err := client.Read(buf)
					got.Write(buf[:n])
					if err != nil {
						break
					}
				}
				if strings.Count(got.String(), "HTTP/1.1 200 OK") != 1 {
					t.Errorf("got %q", got.String())
				}
			}
		})
	}
}

// TestWhoStillSendsIsLeftTimeToRead: a connection that is closed while much comes is
// reset, and the client may lose the response.
func TestWhoStillSendsIsLeftTimeToRead(t *testing.T) {
	for name, head := range map[string]string{
		"declined":  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n",
		"malformed": "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1000000000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, _ := serve(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) { _ = respond(x, 301, "") }})
			_ = client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			_, err := io.WriteString(client, head)
			for chunk := make([]byte, 1<<20); err == nil; {
				_, err = client.Write(chunk)
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("sending ends with %v", err)
			}
			_ = client.SetReadDeadline(time.Now().Add(bound))
			if got := readHead(t, client); !strings.HasPrefix(got, "HTTP/1.1 301") && !strings.HasPrefix(got, "HTTP/1.1 400") {
				t.Errorf("got %q", got)
			}
			if _, err := io.ReadAll(client); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is never closed")
			}
		})
	}
}

func TestSwitch(t *testing.T) {
	echo := func(_ context.Context, x message.Exchange) {
		s, err := x.Switch(&message.Response{Status: 200, Header: field("x-a", "1")})
		if err != nil {
			_ = respond(x, 400, "")
			return
		}
		_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
		_ = s.CloseWrite()
	}
	for _, c := range []struct{ name, in, want string }{
		{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tulle/1\r\n\r\nabc",
			"HTTP/1.1 101 Switching Protocols\r\nx-a: 1\r\nconnection: upgrade\r\nupgrade: tulle/1\r\n\r\nabc"},
		{"websocket", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nabc",
			"HTTP/1.1 101 Switching Protocols\r\nx-a: 1\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
				"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nabc"},
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nabc", "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nabc"},
		{"neither", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := exchangeRaw(t, &http1.Server{Handler: echo}, c.in)
			if err != nil {
				t.Error(err)
			}
			if got = undated(got); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	t.Run("what follows a refused CONNECT is no request", func(t *testing.T) {
		got, _ := exchangeRaw(t, &http1.Server{Handler: func(_ context.Context, x message.Exchange) { _ = respond(x, 403, "") }},
			"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if strings.Count(got, "HTTP/1.1") != 1 {
			t.Errorf("got %q", got)
		}
	})
}

// piped serves one end of an in-memory connection inside of a bubble.
func piped(s *http1.Server) (client net.Conn, result <-chan error) {
	a, b := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), b) }()
	return a, ended
}

func TestTimeouts(t *testing.T) {
	ok := func(_ context.Context, x message.Exchange) {
		_, err := io.ReadAll(readerOf(x.Body()))
		if err == nil {
			_ = respond(x, 200, "")
		}
	}
	for _, c := range []struct {
		name   string
		config http1.ServerConfig
		in     string
		status int // of a ProtocolError; -1 another error, 0 none
		answer string
	}{
		{"idle", http1.ServerConfig{IdleTimeout: time.Minute}, "", 0, ""},
		{"idle after a request", http1.ServerConfig{IdleTimeout: time.Minute, HeadTimeout: time.Hour}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, "HTTP/1.1 200 OK"},
		{"head", http1.ServerConfig{HeadTimeout: time.Minute}, "GET / HT", 408, "HTTP/1.1 408 Request Timeout"},
		{"content", http1.ServerConfig{StallTimeout: time.Minute}, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na", -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, result := piped(&http1.Server{Config: c.config, Handler: ok})
				began := time.Now()
				go func() { _, _ = io.WriteString(client, c.in) }()
				got, _ := io.ReadAll(client)
				err := <-result
				var protocol *message.ProtocolError
				switch {
				case c.status == 0 && err != nil,
					c.status > 0 && (!errors.As(err, &protocol) || protocol.Status != c.status),
					c.status < 0 && err == nil:
					t.Errorf("Serve returns %v", err)
				}
				if !strings.HasPrefix(string(got), c.answer) {
					t.Errorf("got %q", got)
				}
				if took := time.Since(began); took < time.Minute || took > time.Minute+2*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestHandlerIsToldThatTheClientHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, result := piped(&http1.Server{Handler: func(ctx context.Context, x message.Exchange) {
			<-ctx.Done()
			x.Abort(context.Cause(ctx))
		}})
		_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Hour)
		_ = client.Close()
		if err := <-result; err == nil {
			t.Error("Serve returns nil")
		}
	})
}

func TestRequestsThatComeEarlyAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, result := piped(&http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			time.Sleep(time.Minute)
			_ = respond(x, 200, describe(x))
		}})
		go func() {
			_, _ = io.WriteString(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(time.Second)
			_, _ = io.WriteString(client, "GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		}()
		got, _ := io.ReadAll(client)
		if !strings.Contains(string(got), "[/1]") || !strings.Contains(string(got), "[/2]") {
			t.Errorf("got %q", got)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			if x.Request().Path == "/slow" {
				<-release
			}
			_ = respond(x, 200, "")
		}}
		idle, idleEnded := piped(s)
		used, usedEnded := piped(s)
		slow, slowEnded := piped(s)
		_, _ = io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait()
		began := time.Now()
		s.Drain()
		s.Drain()
		// A request that was on its way is answered.
		time.Sleep(time.Second)
		_, _ = io.WriteString(used, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got, _ := io.ReadAll(used); !strings.Contains(string(got), "200 OK") || !strings.Contains(string(got), "connection: close") {
			t.Errorf("got %q", got)
		}
		if err := <-usedEnded; err != nil {
			t.Error(err)
		}
		// Idle connections end.
		if got, err := io.ReadAll(idle); len(got) > 0 || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if err := <-idleEnded; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		// Requests under way finish.
		time.Sleep(time.Hour)
		close(release)
		if got, _ := io.ReadAll(slow); !strings.Contains(string(got), "200 OK") || !strings.Contains(string(got), "connection: close") {
			t.Errorf("got %q", got)
		}
		if err := <-slowEnded; err != nil {
			t.Error(err)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	client, conn := pair(t)
	result := make(chan error, 1)
	go func() { result <- http1.Serve(ctx, conn, http1.ServerConfig{}, nil) }()
	cancel()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives")
	}
	<-result
}

func TestAnsweringEndsTheReadingOfContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, result := piped(&http1.Server{Handler: func(_ context.Context, x message.Exchange) {
			read := make(chan error)
			go func() {
				_, err := io.ReadAll(readerOf(x.Body()))
				read <- err
			}()
			time.Sleep(time.Second)
			_ = respond(x, 413, "")
			if err := <-read; err == nil {
				t.Error("the content was read to its end")
			}
		}})
		go func() { _, _ = io.WriteString(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na") }()
		if got, _ := io.ReadAll(client); !strings.HasPrefix(string(got), "HTTP/1.1 413 Content Too Large\r\n") {
			t.Errorf("got %q", got)
		}
		<-result
	})
}

// counted counts the writes on a connection.
type counted struct {
	*net.TCPConn
	writes *int
}

func (c counted) Write(p []byte) (int, error) {
	*c.writes++
	return c.TCPConn.Write(p)
}

func TestSmallResponsesAreOneWrite(t *testing.T) {
	for _, length := range []int64{1000, -1} {
		client, conn := pair(t)
		writes := 0
		result := make(chan error, 1)
		go func() {
			result <- http1.Serve(context.Background(), counted{conn, &writes}, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
				_ = x.Respond(&message.Response{Status: 200, Length: length}, false)
				_, _ = x.Write(make([]byte, 500))
				_, _ = x.Write(make([]byte, 500))
				_ = x.Close(nil)
			})
		}()
		_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		_ = client.CloseWrite()
		_, _ = io.ReadAll(client)
		<-result
		if writes != 1 {
			t.Errorf("length %d: %d writes", length, writes)
		}
	}
}
