package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// script is a connection whose peer has said all it has to say.
type script struct {
	net.Conn
	in     io.Reader
	out    bytes.Buffer
	closed bool
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *script) Close() error                { s.closed = true; return nil }

// FuzzServer compares what the server reads with what net/http does, request by
// request: as long as both take what comes, they must take it for the same.
func FuzzServer(f *testing.F) {
	for _, c := range goodRequests {
		f.Add([]byte(c.in))
	}
	for _, c := range badRequests {
		f.Add([]byte(c.in))
	}
	for _, c := range badContents {
		f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + c.in + "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		other := bufio.NewReader(bytes.NewReader(in))
		following := true
		c := &script{in: bytes.NewReader(in)}
		requests := 0
		_ = http1.Serve(context.Background(), c, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
			requests++
			r := x.Request()
			content, err := io.ReadAll(readerOf(x.Body()))
			defer func() {
				if err != nil {
					x.Abort(err)
				} else if err := respond(x, 400, "x"); err != nil {
					t.Errorf("respond: %v", err)
				}
			}()
			for _, h := range []message.Header{r.Header, x.Body().Trailer()} {
				for _, f := range h {
					if message.Reserved(f.Name) || !message.ValidName(f.Name) || !message.ValidValue(f.Value) {
						t.Errorf("the field %q", f)
					}
				}
			}
			if !following {
				return
			}
			request, otherErr := http.ReadRequest(other)
			if otherErr != nil {
				following = false
				return
			}
			otherContent, otherErr := io.ReadAll(request.Body)
			if err != nil || otherErr != nil {
				following = false
				return
			}
			if request.Method != r.Method || !bytes.Equal(content, otherContent) {
				t.Errorf("%s %s with %q is read by net/http as %s %s with %q", r.Method, r.Target(), content, request.Method, request.RequestURI, otherContent)
			}
			if host, err := message.NormalizeAuthority(request.Host); err == nil && host != r.Authority {
				t.Errorf("the host %q is read by net/http as %q", r.Authority, host)
			}
			otherPath, pathErr := message.NormalizePath(request.URL.EscapedPath())
			if pathErr != nil || r.Path == "*" || request.URL.Path == "" {
				return
			}
			a, _ := url.PathUnescape(r.Path)
			if b, _ := url.PathUnescape(otherPath); a != b {
				t.Errorf("the path %q is read by net/http as %q", r.Path, otherPath)
			}
		})
		if !c.closed {
			t.Error("the connection is open")
		}
		if n := strings.Count(c.out.String(), "HTTP/1.1 "); n > requests+2 {
			t.Errorf("%d responses to %d requests", n, requests)
		}
	})
}

// FuzzClient compares what the client reads with what net/http does.
func FuzzClient(f *testing.F) {
	for _, c := range badResponses {
		f.Add([]byte(c.in), false)
	}
	for _, in := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\nabc",
		"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nx: y\r\n\r\n",
	} {
		f.Add([]byte(in), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		c := &script{in: bytes.NewReader(in)}
		client, _ := http1.NewClient(c, http1.ClientConfig{})
		defer client.Close()
		request := get("/")
		if head {
			request.Method = "HEAD"
		}
		x, err := client.Open(context.Background(), request, true)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		other := bufio.NewReader(bytes.NewReader(in))
		for {
			r, err := x.Response(context.Background())
			if err != nil {
				return
			}
			response, otherErr := http.ReadResponse(other, &http.Request{Method: request.Method})
			if r.Interim() {
				if otherErr != nil || response.StatusCode != r.Status {
					return
				}
				continue
			}
			buffered, whole := x.Body().(message.BufferedBody).Buffered()
			content, err := io.ReadAll(readerOf(x.Body()))
			if buffered > len(content) || err == nil && whole && buffered != len(content) {
				t.Errorf("%d octets are told to be there (whole: %v) of %d, %v", buffered, whole, len(content), err)
			}
			if err != nil || otherErr != nil {
				return
			}
			otherContent, otherErr := io.ReadAll(response.Body)
			if otherErr == nil && (response.StatusCode != r.Status || !bytes.Equal(content, otherContent)) {
				t.Errorf("%d with %q is read by net/http as %d with %q", r.Status, content, response.StatusCode, otherContent)
			}
			return
		}
	})
}

// FuzzWrite sends a field that anybody may have made up, both ways: either it is
// refused, or the other side gets this field and no other.
func FuzzWrite(f *testing.F) {
	for _, s := range []string{"a", "A", "a\r\nb: c", "\n", "\r", "\x00", "a b", "a:", "", " a", "transfer-encoding", "host", "content-length"} {
		f.Add(s, "b", "/")
		f.Add("a", s, "/")
		f.Add("a", "b", "/"+s)
	}
	f.Fuzz(func(t *testing.T, name, value, path string) {
		h := field(name, value)
		c := &script{in: strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
		_ = http1.Serve(context.Background(), c, http1.ServerConfig{}, func(_ context.Context, x message.Exchange) {
			if err := x.Respond(&message.Response{Status: 200, Header: h}, true); err != nil {
				_ = respond(x, 500, "")
				return
			}
			_ = x.Close(nil)
		})
		response, err := http.ReadResponse(bufio.NewReader(&c.out), nil)
		if err == nil && len(response.Header) > 3 { // the field, the date, the length
			t.Errorf("%q: %q becomes %v", name, value, response.Header)
		}

		c = &script{in: strings.NewReader("")}
		client, _ := http1.NewClient(c, http1.ClientConfig{})
		defer client.Close()
		x, err := client.Open(context.Background(), &message.Request{Method: "GET", Authority: "a", Path: path, Header: h}, true)
		if err != nil {
			return
		}
		defer x.Close()
		_ = x.Flush()
		lines := strings.Split(c.out.String(), "\r\n")
		if len(lines) > 6 || strings.Count(lines[0], " ") != 2 || strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
			t.Errorf("%q: %q, %q becomes %q", name, value, path, lines)
		}
	})
}
