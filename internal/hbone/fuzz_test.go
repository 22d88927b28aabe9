package hbone_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
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

// requestTranscript is a client that asks, sends, pads, pings and ends.
func requestTranscript(t testing.TB) []byte {
	return record(t, func(p *rawPeer) {
		p.greet()
		_ = p.WriteSettingsAck()
		_ = p.headers(1, false, ":method", "CONNECT", ":authority", "10.0.0.7:8080", "baggage", "service.name=web")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.WriteDataPadded(1, false, []byte("padded"), make([]byte, 9))
		_ = p.WritePing(false, [8]byte{1})
		_ = p.WriteWindowUpdate(1, 100)
		_ = p.WritePriority(1, http2.PriorityParam{Weight: 3})
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(":method", "GET", ":scheme", "http")})
		_ = p.WriteContinuation(3, true, p.block(":path", "/", "content-length", "3"))
		_ = p.WriteData(3, true, []byte("abc"))
		_ = p.WriteData(1, true, nil)
		_ = p.WriteRSTStream(3, http2.ErrCodeCancel)
		_ = p.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
}

// answerTranscript is a server that accepts, answers, refuses and drains.
func answerTranscript(t testing.TB) []byte {
	return record(t, func(p *rawPeer) {
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
		_ = p.WriteSettingsAck()
		_ = p.headers(1, false, ":status", "103", "link", "x")
		_ = p.headers(1, false, ":status", "200", "baggage", "service.name=api")
		_ = p.WriteData(1, false, []byte("hello"))
		_ = p.WriteDataPadded(1, true, []byte("end"), make([]byte, 3))
		_ = p.headers(3, true, ":status", "503")
		_ = p.WriteGoAway(3, http2.ErrCodeNo, []byte("bye"))
	})
}

// feedServer gives input to a server and closes the connection; it returns when the
// server has ended, which must not take long.
func feedServer(t testing.TB, input []byte, h hbone.Handler) {
	c, s := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = (&hbone.Server{Handler: h, MaxStreams: 10}).ServeConn(context.Background(), s, nil)
	}()
	feed(t, c, input, served)
}

// feedClient gives input to a client that has two requests out.
func feedClient(t testing.TB, input []byte) {
	c, s := net.Pipe()
	client, err := hbone.NewClient(s, hbone.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	for range 2 {
		go func() {
			defer func() { opened <- struct{}{} }()
			if s, _, err := client.Open(context.Background(), anyRequest); err == nil {
				_, _ = io.Copy(io.Discard, s)
				_ = s.Close()
			}
		}()
	}
	feed(t, c, input, client.Done())
	<-opened
	<-opened
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
		t.Fatal("the tunnel outlives its connection")
	}
}

func FuzzServer(f *testing.F) {
	f.Add(requestTranscript(f)[len(http2.ClientPreface):])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, input []byte) {
		feedServer(t, append([]byte(http2.ClientPreface), input...), answerWithBody)
	})
}

func FuzzClient(f *testing.F) {
	f.Add(answerTranscript(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, input []byte) { feedClient(t, input) })
}

func FuzzAuthority(f *testing.F) {
	for _, a := range []string{"10.0.0.7:80", "[fd00::7]:443", "web.shop.svc.cluster.local:8080", "a:0", "[::1%eth0]:1", ":80", "x y:1", "1.2.3.400:5"} {
		f.Add(a)
	}
	f.Fuzz(func(t *testing.T, a string) {
		if hbone.ValidateAuthority(a) != nil {
			return
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" || net.JoinHostPort(host, port) != a {
			t.Errorf("%q was accepted but is %q and %q (%v)", a, host, port, err)
		}
	})
}

// TestTruncatedInput cuts a good conversation at every octet: whatever is missing,
// the other side ends, and a request is seen only when all of it came.
func TestTruncatedInput(t *testing.T) {
	whole := requestTranscript(t)
	for n := range whole {
		var seen int
		done := make(chan struct{}, 10)
		feedServer(t, whole[:n], func(_ context.Context, r *hbone.ServerRequest) {
			if r.Method == "CONNECT" && r.Authority != "10.0.0.7:8080" || r.Method == "GET" && n < bytes.Index(whole, []byte("abc"))-9 {
				t.Errorf("cut at %d: request %+v", n, r.Request)
			}
			done <- struct{}{}
			_ = r.Refuse(400)
		})
		for len(done) > 0 {
			<-done
			seen++
		}
		if seen > 2 {
			t.Errorf("cut at %d: %d requests", n, seen)
		}
	}
	answers := answerTranscript(t)
	for n := range answers {
		feedClient(t, answers[:n])
	}
}
