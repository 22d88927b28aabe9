package http1_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// bound is how long a test waits for what must come.
const bound = 20 * time.Second

// pair returns both ends of a connection on the loopback.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := <-accepted
	if s == nil {
		t.Fatal("no connection")
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
	})
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// serve serves one connection, and returns the client's end of it and what Serve
// returns.
func serve(t testing.TB, s *http1.Server) (*net.TCPConn, <-chan error) {
	t.Helper()
	client, conn := pair(t)
	result := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		result <- s.Serve(context.Background(), conn)
		close(ended)
	}()
	t.Cleanup(func() {
		_ = client.Close()
		<-ended
	})
	return client, result
}

// exchangeRaw sends in to a server that answers by h, and returns all it answers.
func exchangeRaw(t testing.TB, s *http1.Server, in string) (string, error) {
	t.Helper()
	client, result := serve(t, s)
	_ = client.SetDeadline(time.Now().Add(bound))
	go func() {
		_, _ = io.WriteString(client, in)
		_ = client.CloseWrite()
	}()
	out, err := io.ReadAll(client)
	if err != nil {
		t.Errorf("read the answer: %v", err)
	}
	return string(out), <-result
}

// describe returns a request as a line of text, with its content.
func describe(x message.Exchange) string {
	r := x.Request()
	content, err := io.ReadAll(readerOf(x.Body()))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s [%s]", r.Method, r.Scheme, r.Authority, r.Target())
	if r.Protocol != "" {
		fmt.Fprintf(&b, " protocol=%s", r.Protocol)
	}
	for _, f := range r.Header {
		fmt.Fprintf(&b, " %s=%q", f.Name, f.Value)
	}
	fmt.Fprintf(&b, " length=%d content=%q", r.Length, content)
	for _, f := range x.Body().Trailer() {
		fmt.Fprintf(&b, " trailer %s=%q", f.Name, f.Value)
	}
	if err != nil {
		fmt.Fprintf(&b, " error=%v", err)
	}
	return b.String()
}

// readerOf makes a Body what package io knows.
func readerOf(b message.Body) io.Reader { return struct{ io.Reader }{b} }

// respond answers with a text.
func respond(x message.Exchange, status int, text string) error {
	if err := x.Respond(&message.Response{Status: status, Length: int64(len(text))}, text == ""); err != nil {
		return err
	}
	if text != "" {
		if _, err := io.WriteString(writerOf(x), text); err != nil {
			return err
		}
	}
	return x.Close(nil)
}

func writerOf(x message.Exchange) io.Writer { return struct{ io.Writer }{x} }

// field returns a Header of one field.
func field(name, value string) (h message.Header) {
	h.Add(name, value)
	return h
}

// undated takes the dates out of responses.
func undated(s string) string {
	var lines []string
	for _, line := range strings.SplitAfter(s, "\r\n") {
		if !strings.HasPrefix(line, "date: ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// connect returns a client, and the server's end of its connection.
func connect(t testing.TB) (*http1.ClientConn, *net.TCPConn) {
	t.Helper()
	a, b := pair(t)
	c, err := http1.NewClient(a, http1.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = b.SetDeadline(time.Now().Add(bound))
	return c, b
}

// readHead reads from c up to an empty line.
func readHead(t testing.TB, c net.Conn) string {
	t.Helper()
	var b strings.Builder
	for one := make([]byte, 1); !strings.HasSuffix(b.String(), "\r\n\r\n"); {
		if _, err := c.Read(one); err != nil {
			t.Fatalf("read a head: %v after %q", err, b.String())
		}
		b.Write(one)
	}
	return b.String()
}

func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "http", Authority: "a", Path: path}
}
