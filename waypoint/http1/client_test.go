package http1_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestRequestsThatAreSent(t *testing.T) {
	post := func(length int64, h message.Header) *message.Request {
		return &message.Request{Method: "POST", Authority: "a:80", Path: "/p", Query: "q", HasQuery: true, Header: h, Length: length}
	}
	for _, c := range []struct {
		name    string
		request *message.Request
		content []string
		trailer message.Header
		want    string
	}{
		{"GET", get("/"), nil, nil, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
		{"length", post(3, field("x-a", "1")), []string{"ab", "c"}, field("x-t", "1"),
			"POST /p?q HTTP/1.1\r\nhost: a:80\r\nx-a: 1\r\ncontent-length: 3\r\n\r\nabc"},
		{"chunked", post(-1, nil), []string{"ab", "c"}, field("x-t", "1"),
			"POST /p?q HTTP/1.1\r\nhost: a:80\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-t: 1\r\n\r\n"},
		{"POST without content", post(0, nil), nil, nil, "POST /p?q HTTP/1.1\r\nhost: a:80\r\ncontent-length: 0\r\n\r\n"},
		{"fields that frame", post(0, message.Header{
			{Name: "content-length", Value: "9"}, {Name: "transfer-encoding", Value: "chunked"}, {Name: "host", Value: "b"},
			{Name: "connection", Value: "close"}, {Name: "upgrade", Value: "h2c"}, {Name: "te", Value: "gzip"},
		}), nil, nil, "POST /p?q HTTP/1.1\r\nhost: a:80\r\ncontent-length: 0\r\n\r\n"},
		{"te", &message.Request{Method: "GET", Authority: "a", Path: "/", Header: field("te", "trailers")}, nil, nil,
			"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n"},
		{"asterisk", &message.Request{Method: "OPTIONS", Authority: "a", Path: "*"}, nil, nil, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := connect(t)
			end := c.content == nil
			x, err := client.Open(t.Context(), c.request, end)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			for _, part := range c.content {
				if _, err := x.Write([]byte(part)); err != nil {
					t.Fatal(err)
				}
			}
			if !end {
				if err := x.CloseWrite(c.trailer); err != nil {
					t.Fatal(err)
				}
			}
			if err := x.Flush(); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(c.want))
			if _, err := io.ReadFull(server, got); err != nil || string(got) != c.want {
				t.Errorf("got  %q, %v\nwant %q", got, err, c.want)
			}
		})
	}
}

func TestRequestsThatAreNotSent(t *testing.T) {
	for _, r := range []*message.Request{
		{Method: "GET", Authority: "a", Path: "/a b"},
		{Method: "GET", Authority: "a", Path: "/a\r\nx: y"},
		{Method: "GET", Authority: "a", Path: "/", Query: "a\nb", HasQuery: true},
		{Method: "GET", Authority: "a\r\nx: y", Path: "/"},
		{Method: "GET /a", Authority: "a", Path: "/"},
		{Method: "", Authority: "a", Path: "/"},
		{Method: "GET", Authority: "a", Path: ""},
		{Method: "GET", Authority: "a", Path: "/", Header: field("x", "a\r\nb: c")},
		{Method: "GET", Authority: "a", Path: "/", Header: field("x y", "a")},
		{Method: "GET", Authority: "a", Path: "/", Protocol: "a\r\nb: c"},
		{Method: "GET", Authority: "a", Path: "/" + strings.Repeat("a", 70<<10)},
	} {
		client, _ := connect(t)
		if _, err := client.Open(t.Context(), r, true); err == nil || !message.Unsent(err) {
			t.Errorf("Open of %+v returns %v", r, err)
		}
		if !client.Usable() {
			t.Error("the connection cannot be used any more")
		}
	}
}

// answer reads a request and answers it.
func answer(t testing.TB, server net.Conn, text string) {
	t.Helper()
	readHead(t, server)
	if _, err := io.WriteString(server, text); err != nil {
		t.Error(err)
	}
}

// read describes a response as a line of text.
func read(ctx context.Context, x message.ClientExchange) string {
	var b strings.Builder
	for {
		r, err := x.Response(ctx)
		if err != nil {
			fmt.Fprintf(&b, "error %v", err)
			return b.String()
		}
		fmt.Fprint(&b, r.Status)
		for _, f := range r.Header {
			fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
		}
		if !r.Interim() {
			fmt.Fprintf(&b, " length=%d", r.Length)
			break
		}
		b.WriteString(", ")
	}
	content, err := io.ReadAll(readerOf(x.Body()))
	fmt.Fprintf(&b, " content=%q", content)
	for _, f := range x.Body().Trailer() {
		fmt.Fprintf(&b, " trailer %s=%q", f.Name, f.Value)
	}
	if err != nil {
		b.WriteString(" incomplete")
	}
	return b.String()
}

func TestResponsesThatAreRead(t *testing.T) {
	for _, c := range []struct {
		name, method, in, want string
		usable                 bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nX-A:  1 \r\nContent-Length: 3\r\n\r\nabc", `200 x-a="1" length=3 content="abc"`, true},
		{"no length", "GET", "HTTP/1.1 200 OK\r\n\r\nabc", `200 length=-1 content="abc"`, false},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", `200 length=0 content=""`, true},
		{"empty reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", `200 length=0 content=""`, true},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
			`200 length=-1 content="abc" trailer x-t="1"`, true},
		{"close", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", `200 length=3 content="abc"`, false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", `200 length=3 content="abc"`, false},
		{"interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
			`100, 103 link="a", 204 length=0 content=""`, true},
		{"interim, then content", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
			`100, 200 length=3 content="abc"`, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", `200 length=3 content=""`, true},
		{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", `200 length=-1 content=""`, true},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", `304 length=3 content=""`, true},
		{"no content with length 0", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", `204 length=0 content=""`, true},
		{"more than a response", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", `200 length=3 content="abc"`, false},
		{"content where none is", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", `200 length=3 content=""`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := connect(t)
			request := get("/")
			request.Method = c.method
			x, err := client.Open(t.Context(), request, true)
			if err != nil {
				t.Fatal(err)
			}
			if client.Usable() || client.Active() != 1 {
				t.Error("usable with a request under way")
			}
			if _, err := client.Open(t.Context(), request, true); !message.Unsent(err) {
				t.Errorf("a second request: %v", err)
			}
			go func() {
				answer(t, server, c.in)
				if !c.usable {
					_ = server.CloseWrite()
				}
			}()
			if got := read(t.Context(), x); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			_ = x.Close()
			_ = x.Close()
			if client.Usable() != c.usable || client.Active() != 0 {
				t.Errorf("usable %v, active %d", client.Usable(), client.Active())
			}
			if _, err := x.Write([]byte("a")); err == nil {
				t.Error("written after Close")
			}
			if _, err := x.Response(t.Context()); err == nil {
				t.Error("a response after Close")
			}
			select {
			case <-client.Done():
				if c.usable {
					t.Error("ended")
				}
			default:
				if !c.usable {
					t.Error("not ended")
				}
			}
		})
	}
}

var badResponses = []struct{ name, in string }{
	{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
	{"two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
	{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"},
	{"two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
	{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"},
	{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"},
	{"bare line feed", "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 3\r\n\r\nabc"},
	{"bare carriage return", "HTTP/1.1 200 OK\r\nX: y\rContent-Length: 3\r\n\r\nabc"},
	{"folded", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 3\r\n\r\nabc"},
	{"space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc"},
	{"NUL", "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 3\r\n\r\nabc"},
	{"HTTP/2", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"HTTP/0.9", "abc\r\n\r\n"},
	{"leading line", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"two digits", "HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"status 0", "HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"status 600", "HTTP/1.1 600 OK\r\nContent-Length: 3\r\n\r\nabc"},
	{"control in the reason", "HTTP/1.1 200 O\x01K\r\nContent-Length: 3\r\n\r\nabc"},
	{"204 with content", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc"},
	{"204 chunked", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"100 with content", "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc"},
	{"unasked upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
	{"interim ones without end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20) + "HTTP/1.1 200 OK\r\n\r\n"},
	{"too many fields", "HTTP/1.1 200 OK\r\n" + manyFields(101) + "\r\n"},
	{"too large", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 70<<10) + "\r\n\r\n"},
}

func TestAmbiguousResponsesAreRefused(t *testing.T) {
	for _, c := range badResponses {
		t.Run(c.name, func(t *testing.T) {
			client, server := connect(t)
			x, err := client.Open(t.Context(), get("/"), true)
			if err != nil {
				t.Fatal(err)
			}
			go answer(t, server, c.in)
			var protocol *message.ProtocolError
			for {
				r, err := x.Response(t.Context())
				if err == nil && r.Interim() {
					continue
				}
				if !errors.As(err, &protocol) {
					t.Errorf("got %+v, %v", r, err)
				}
				break
			}
			_ = x.Close()
			if client.Usable() {
				t.Error("the connection is usable")
			}
		})
	}
}

func TestTruncatedResponsesAreNotWhole(t *testing.T) {
	for _, c := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nx: y\r\n\r\n",
	} {
		for n := range len(c) {
			client, server := connect(t)
			x, err := client.Open(t.Context(), get("/"), true)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				answer(t, server, c[:n])
				_ = server.CloseWrite()
			}()
			got := read(t.Context(), x)
			if !strings.HasPrefix(got, "error read response: reset by the peer") && !strings.HasSuffix(got, "incomplete") {
				t.Errorf("%q is read as %s", c[:n], got)
			}
			_ = x.Close()
			if client.Usable() {
				t.Errorf("usable after %q", c[:n])
			}
			_ = server.Close()
		}
	}
}

func TestOneConnectionTakesManyRequests(t *testing.T) {
	a, b := pair(t)
	ended := make(chan error, 1)
	go func() {
		ended <- http1.Serve(context.Background(), b, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
			content, _ := io.ReadAll(readerOf(x.Body()))
			_ = respond(x, 200, x.Request().Path+string(content))
		})
	}()
	client, _ := http1.NewClient(a, http1.ClientConfig{})
	for i := range 100 {
		size := []int{0, 1, 1000, 5000, 100_000}[i%5]
		content := strings.Repeat("x", size)
		request := &message.Request{Method: "POST", Authority: "a", Path: fmt.Sprint("/", i), Length: int64(size)}
		if i%2 == 0 {
			request.Length = -1
		}
		x, err := client.Open(t.Context(), request, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(struct{ io.Writer }{x}, content); err != nil {
			t.Fatal(err)
		}
		if err := x.CloseWrite(nil); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(readerOf(x.Body()))
		if err != nil || string(got) != request.Path+content {
			t.Fatalf("request %d: %d octets, %v", i, len(got), err)
		}
		_ = x.Close()
	}
	_ = client.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheContextEndsAnExchange(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context, x message.ClientExchange) error{
		"response": func(ctx context.Context, x message.ClientExchange) error {
			_, err := x.Response(ctx)
			return err
		},
		"write": func(_ context.Context, x message.ClientExchange) error {
			_, err := x.Write(make([]byte, 100_000))
			return err
		},
		"content": func(ctx context.Context, x message.ClientExchange) error {
			if _, err := x.Response(ctx); err != nil {
				return fmt.Errorf("too early: %w", err)
			}
			_, err := io.ReadAll(readerOf(x.Body()))
			return err
		},
	} {
		for _, timeout := range []time.Duration{0, time.Millisecond, time.Minute, -1} {
			idle := timeout < 0
			timeout := max(timeout, 0)
			t.Run(fmt.Sprint(name, timeout, idle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := net.Pipe()
					client, _ := http1.NewClient(a, http1.ClientConfig{})
					if idle {
						// The watch reads when the exchange begins.
						go answer(t, b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						if err := roundTrip(t.Context(), client, get("/"), make([]byte, 100)); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Minute)
					}
					if name != "write" {
						go func() {
							buf := make([]byte, 1000)
							_, _ = b.Read(buf)
							if name == "content" {
								_, _ = io.WriteString(b, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
							}
						}()
					}
					ctx, cancel := context.WithCancel(t.Context())
					want := context.Canceled
					if timeout > 0 {
						ctx, cancel = context.WithTimeout(t.Context(), timeout)
						want = context.DeadlineExceeded
					} else {
						time.AfterFunc(time.Second, cancel)
					}
					defer cancel()
					began := time.Now()
					x, err := client.Open(ctx, &message.Request{Method: "POST", Authority: "a", Path: "/", Length: -1}, false)
					if err != nil {
						t.Fatal(err)
					}
					if err := wait(ctx, x); !errors.Is(err, want) {
						t.Errorf("%v, want %v", err, want)
					}
					if took := time.Since(began); timeout > 0 && took != timeout || timeout == 0 && took != time.Second {
						t.Errorf("took %v", took)
					}
					_ = x.Close()
					<-client.Done()
					_ = b.Close()
				})
			})
		}
	}
}

func TestAnIdleConnectionIsWatched(t *testing.T) {
	for name, end := range map[string]func(c net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"octets that nobody asked for": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				defer b.Close()
				client, _ := http1.NewClient(a, http1.ClientConfig{})
				// Requests after pauses of all kinds.
				for i := range 4 {
					go answer(t, b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					x, err := client.Open(t.Context(), get("/"), true)
					if err != nil {
						t.Fatal(err)
					}
					if got := read(t.Context(), x); got != `200 length=0 content=""` {
						t.Error(got)
					}
					_ = x.Close()
					time.Sleep(time.Duration(i) * 99 * time.Millisecond)
				}
				time.Sleep(time.Hour)
				if !client.Usable() {
					t.Error("an idle connection is not usable")
				}
				end(b)
				<-client.Done()
				if client.Usable() {
					t.Error("usable")
				}
				if _, err := client.Open(t.Context(), get("/"), true); !message.Unsent(err) {
					t.Errorf("Open returns %v", err)
				}
				_ = client.Close()
			})
		})
	}
}

func TestAnEarlyResponseIsRead(t *testing.T) {
	client, server := connect(t)
	x, err := client.Open(t.Context(), &message.Request{Method: "POST", Authority: "a", Path: "/", Length: 100 << 20}, false)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		for {
			if _, err := x.Write(make([]byte, 64<<10)); err != nil {
				written <- err
				return
			}
		}
	}()
	go answer(t, server, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nabc")
	if got := read(t.Context(), x); got != `413 length=3 content="abc"` {
		t.Error(got)
	}
	// The server takes nothing more: Close ends the write.
	_ = x.Close()
	if err := <-written; err == nil {
		t.Error("written")
	}
	if client.Usable() {
		t.Error("usable")
	}
}

func TestWhatWasPutOffIsSentWhenTheResponseIsWaitedFor(t *testing.T) {
	client, server := connect(t)
	x, err := client.Open(t.Context(), &message.Request{Method: "POST", Authority: "a", Path: "/", Length: -1}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	got := make(chan string)
	go func() { got <- read(t.Context(), x) }()
	readHead(t, server)
	for _, part := range []string{"a", "bc"} {
		if _, err := x.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
		chunk := make([]byte, len(want))
		if _, err := io.ReadFull(server, chunk); err != nil || string(chunk) != want {
			t.Fatalf("got %q, %v", chunk, err)
		}
	}
	if err := x.CloseWrite(nil); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if got := <-got; got != `200 length=0 content=""` {
		t.Error(got)
	}
}

// countedReads counts the reads on a connection that bring something.
type countedReads struct {
	net.Conn
	reads int
}

func (c *countedReads) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.reads++
	}
	return n, err
}

func TestReadsGrowWithTheResponses(t *testing.T) {
	content := strings.Repeat("x", 10_000)
	a, b := memoryPair()
	ended := make(chan struct{})
	go func() {
		_ = http1.Serve(context.Background(), b, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
			_ = respond(x, 200, content)
		})
		close(ended)
	}()
	conn := &countedReads{Conn: a}
	client, _ := http1.NewClient(conn, http1.ClientConfig{})
	buf := make([]byte, 32<<10)
	for range 3 {
		conn.reads = 0
		if err := roundTrip(t.Context(), client, get("/"), buf); err != nil {
			t.Fatal(err)
		}
	}
	if conn.reads != 1 {
		t.Errorf("%d reads for a response of 10 KB", conn.reads)
	}
	_ = client.Close()
	<-ended
}

// deaf is a connection that takes only some octets.
type deaf struct {
	net.Conn
	left int
}

func (c *deaf) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func TestARequestIsUnsentUntilItsHeadHasLeft(t *testing.T) {
	head := len("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n")
	for _, left := range []int{0, 1, head - 1, head} {
		a, b := net.Pipe()
		client, _ := http1.NewClient(&deaf{a, left}, http1.ClientConfig{})
		x, err := client.Open(t.Context(), &message.Request{Method: "POST", Authority: "a", Path: "/", Length: 3}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = x.Write([]byte("abc"))
		_ = b.Close()
		_, err = x.Response(t.Context())
		if err == nil || message.Unsent(err) != (left < head) {
			t.Errorf("after %d octets of %d: %v", left, head, err)
		}
		_ = x.Close()
		_ = client.Close()
	}
}

func TestStreams(t *testing.T) {
	upgrade := func(protocol string) *message.Request {
		r := get("/")
		r.Protocol = protocol
		return r
	}
	for _, c := range []struct {
		name    string
		request *message.Request
		status  int
	}{
		{"CONNECT", &message.Request{Method: "CONNECT", Authority: "a:1"}, 200},
		{"upgrade", upgrade("tulle/1"), 101},
		{"websocket", upgrade("websocket"), 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			ended := make(chan error, 1)
			go func() {
				ended <- http1.Serve(context.Background(), b, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
					s, err := x.Switch(&message.Response{Status: 200})
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
					_ = s.CloseWrite()
				})
			}()
			client, _ := http1.NewClient(a, http1.ClientConfig{})
			x, err := client.Open(t.Context(), c.request, false)
			if err != nil {
				t.Fatal(err)
			}
			r, err := x.Response(t.Context())
			if err != nil || r.Status != c.status || r.Header.Has("sec-websocket-accept") {
				t.Fatalf("got %+v, %v", r, err)
			}
			s, err := x.Stream()
			if err != nil {
				t.Fatal(err)
			}
			want := bytes.Repeat([]byte("abcdefgh"), 10_000)
			go func() {
				_, _ = s.Write(want)
				_ = s.CloseWrite()
			}()
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d octets, %v", len(got), err)
			}
			_ = x.Close()
			<-client.Done()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a wrong answer to our key", func(t *testing.T) {
		client, server := connect(t)
		x, err := client.Open(t.Context(), upgrade("websocket"), true)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		go answer(t, server, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		if r, err := x.Response(t.Context()); err == nil {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("a refused upgrade leaves the connection", func(t *testing.T) {
		client, server := connect(t)
		x, err := client.Open(t.Context(), upgrade("websocket"), true)
		if err != nil {
			t.Fatal(err)
		}
		go answer(t, server, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		if got := read(t.Context(), x); got != `403 length=0 content=""` {
			t.Error(got)
		}
		if _, err := x.Stream(); err == nil {
			t.Error("a stream")
		}
		_ = x.Close()
		if !client.Usable() {
			t.Error("not usable")
		}
	})
}

func TestLengthsMustHold(t *testing.T) {
	for _, content := range []string{"ab", "abcd"} {
		client, _ := connect(t)
		x, err := client.Open(t.Context(), &message.Request{Method: "POST", Authority: "a", Path: "/", Length: 3}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.Write([]byte(content))
		if err == nil {
			err = x.CloseWrite(nil)
		}
		if err == nil {
			t.Errorf("%q passes for 3 octets", content)
		}
		_ = x.Close()
		if client.Usable() {
			t.Error("usable")
		}
	}
}

func TestBufferedTellsWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		in    string
		n     int
		whole bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", 3, false},
		{"HTTP/1.1 200 OK\r\n\r\nabc", 3, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", 4, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nx: y\r\n\r\n", 4, true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nx: y\r\n", 4, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", 2, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3", 0, false},
	} {
		client, server := connect(t)
		x, err := client.Open(t.Context(), get("/"), true)
		if err != nil {
			t.Fatal(err)
		}
		go answer(t, server, c.in)
		if _, err := x.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, whole := x.Body().(message.BufferedBody).Buffered(); n != c.n || whole != c.whole {
			t.Errorf("%q: %d, %v", c.in, n, whole)
		}
		_ = x.Close()
	}
}
