package http2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// record returns what a well-behaved peer says when f directs it.
func record(t testing.TB, f func(p *rawPeer)) []byte {
	c, s := net.Pipe()
	var said bytes.Buffer
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(&said, s) }()
	p := newRawPeer(t, c)
	f(p)
	_ = c.Close()
	<-done
	return said.Bytes()
}

// requestTranscript is a client that asks, sends, pads, pings, upgrades and ends.
func requestTranscript(t testing.TB) []byte {
	return record(t, func(p *rawPeer) {
		p.greet()
		_ = p.WriteSettingsAck()
		_ = p.request(1, false, "content-length", "11", "cookie", "a=b", "cookie", "c=d")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.WriteDataPadded(1, false, []byte("padded"), make([]byte, 9))
		_ = p.WritePing(false, [8]byte{1})
		_ = p.WriteWindowUpdate(1, 100)
		_ = p.WritePriority(1, xhttp2.PriorityParam{Weight: 3})
		_ = p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "PUT", ":scheme", "http")})
		_ = p.WriteContinuation(3, true, p.block(":path", "/a?b", ":authority", "a", "content-length", "3"))
		_ = p.WriteData(3, true, []byte("abc"))
		_ = p.headers(1, true, "trailer", "x")
		_ = p.headers(5, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "a")
		_ = p.WriteData(5, false, []byte("frames"))
		_ = p.WriteRSTStream(5, xhttp2.ErrCodeCancel)
		_ = p.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
	})
}

// answerTranscript is a server that answers, with interim responses and trailers,
// refuses and drains.
func answerTranscript(t testing.TB) []byte {
	return record(t, func(p *rawPeer) {
		_ = p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 10}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
		_ = p.WriteSettingsAck()
		_ = p.headers(1, false, ":status", "103", "link", "x")
		_ = p.headers(1, false, ":status", "200", "content-length", "8")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.WriteDataPadded(1, false, []byte("end"), make([]byte, 3))
		_ = p.headers(1, true, "grpc-status", "0")
		_ = p.headers(3, true, ":status", "503")
		_ = p.WriteGoAway(3, xhttp2.ErrCodeNo, []byte("bye"))
	})
}

// feedServer gives input to a server and closes the connection; it returns when the
// server has ended, which must not take long.
func feedServer(t testing.TB, input []byte, h message.Handler) {
	c, s := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = http2.Serve(context.Background(), s, http2.ServerConfig{MaxStreams: 10}, h)
	}()
	feed(t, c, input, served)
}

// feedClient gives input to a client that has two requests out.
func feedClient(t testing.TB, input []byte) {
	c, s := net.Pipe()
	client, err := http2.NewClient(s, http2.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			x, err := client.Open(context.Background(), get("/"), true)
			if err != nil {
				return
			}
			for p := (&message.Response{Status: 100}); err == nil && p.Interim(); {
				p, err = x.Response(context.Background())
			}
			if err == nil {
				_, _ = io.Copy(io.Discard, x.Body())
			}
			_ = x.Close()
		})
	}
	feed(t, c, input, client.Done())
	asking.Wait()
}

func feed(t testing.TB, c net.Conn, input []byte, ended <-chan struct{}) {
	heard := make(chan struct{})
	go func() { defer close(heard); _, _ = io.Copy(io.Discard, c) }()
	_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
	_, _ = c.Write(input)
	_ = c.Close()
	<-heard
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the engine outlives its connection")
	}
}

func FuzzServer(f *testing.F) {
	f.Add(requestTranscript(f)[len(xhttp2.ClientPreface):])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, input []byte) {
		feedServer(t, append([]byte(xhttp2.ClientPreface), input...), func(_ context.Context, x message.Exchange) {
			wellFormed(t, x.Request())
			echo(context.Background(), x)
		})
	})
}

// wellFormed holds what every request that gets to a handler promises.
func wellFormed(t testing.TB, r *message.Request) {
	t.Helper()
	if !message.ValidName(lower(r.Method)) || r.Authority == "" {
		t.Errorf("method %q, authority %q", r.Method, r.Authority)
	}
	if a, err := message.NormalizeAuthority(r.Authority); err != nil || a != r.Authority {
		t.Errorf("authority %q is not normal", r.Authority)
	}
	if r.Path != "" && r.Path != "*" {
		if p, err := message.NormalizePath(r.Path); err != nil || p != r.Path {
			t.Errorf("path %q is not normal", r.Path)
		}
	}
	for _, f := range r.Header {
		if !message.ValidName(f.Name) || !message.ValidValue(f.Value) || message.Reserved(f.Name) {
			t.Errorf("field %q: %q", f.Name, f.Value)
		}
	}
}

func lower(s string) string { return string(bytes.ToLower([]byte(s))) }

func FuzzClient(f *testing.F) {
	f.Add(answerTranscript(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, input []byte) { feedClient(t, input) })
}

// TestTruncatedInput cuts a good conversation at every octet: whatever is missing,
// the other side ends, a request is seen only when all of its head came, and a
// content that was cut is no whole one.
func TestTruncatedInput(t *testing.T) {
	whole := requestTranscript(t)
	for n := range whole {
		feedServer(t, whole[:n], func(_ context.Context, x message.Exchange) {
			wellFormed(t, x.Request())
			r := x.Request()
			content, err := io.ReadAll(x.Body())
			if err == nil && r.Length >= 0 && int64(len(content)) != r.Length {
				t.Errorf("cut at %d: %s with %q passed for whole", n, r.Method, content)
			}
			if r.Method == "POST" && err == nil && !x.Body().Trailer().Has("trailer") {
				t.Errorf("cut at %d: the content ended in order before its trailers", n)
			}
		})
	}
	answers := answerTranscript(t)
	for n := range answers {
		feedClient(t, answers[:n])
	}
}
