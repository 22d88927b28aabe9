package http2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// answerBy runs f as the server of a client of ours, in memory and in virtual time;
// f has heard the client's first request when it is called.
func answerBy(t *testing.T, r *message.Request, answer func(p *rawPeer), look func(t *testing.T, client *http2.ClientConn, x message.ClientExchange)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, err := http2.NewClient(c, http2.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		p := newRawPeer(t, s)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.ReadFull(s, make([]byte, len(xhttp2.ClientPreface))); p.listen() })
		x, err := client.Open(t.Context(), r, true)
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		_ = p.WriteSettings()
		synctest.Wait()
		answer(p)
		look(t, client, x)
		_ = x.Close()
		_ = client.Close()
		_ = s.Close()
		p.reading.Wait()
	})
}

func TestMalformedResponsesAreRefused(t *testing.T) {
	head := get("/")
	head.Method = "HEAD"
	for name, c := range map[string]struct {
		request *message.Request
		answer  func(p *rawPeer)
	}{
		"no status":            {nil, func(p *rawPeer) { _ = p.headers(1, true, "x", "y") }},
		"status twice":         {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", ":status", "200") }},
		"status of two digits": {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "20") }},
		"status of letters":    {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "2e2") }},
		"status 0":             {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "000") }},
		"status 600":           {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "600") }},
		"status 101":           {nil, func(p *rawPeer) { _ = p.headers(1, false, ":status", "101") }},
		"path":                 {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", ":path", "/") }},
		"upper case":           {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", "X", "y") }},
		"line break":           {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", "x", "a\r\nb") }},
		"connection":           {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", "connection", "close") }},
		"transfer-encoding":    {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", "transfer-encoding", "chunked") }},
		"content-length twice": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200", "content-length", "1", "content-length", "1")
		}},
		"content missing":             {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "200", "content-length", "1") }},
		"interim response at the end": {nil, func(p *rawPeer) { _ = p.headers(1, true, ":status", "103") }},
		"many interim responses": {nil, func(p *rawPeer) {
			for range 20 {
				_ = p.headers(1, false, ":status", "103")
			}
		}},
		"data first": {nil, func(p *rawPeer) { _ = p.WriteData(1, false, []byte("x")) }},
		"large head": {nil, func(p *rawPeer) { p.longHeaders(1, ":status", "200", "x", strings.Repeat("y", 65<<10)) }},
		"too much": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200", "content-length", "1")
			_ = p.WriteData(1, true, []byte("xx"))
		}},
		"too little": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200", "content-length", "2")
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"content after HEAD": {head, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200", "content-length", "1")
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"content of 304": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "304")
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"content of 204": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "204")
			_ = p.WriteData(1, true, []byte("x"))
		}},
		"trailers without end": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200")
			_ = p.headers(1, false, "x", "y")
		}},
		"connection field in trailers": {nil, func(p *rawPeer) {
			_ = p.headers(1, false, ":status", "200")
			_ = p.headers(1, true, "connection", "close")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.request
			if r == nil {
				r = get("/")
			}
			answerBy(t, r, c.answer, func(t *testing.T, _ *http2.ClientConn, x message.ClientExchange) {
				var err error
				for p := (&message.Response{Status: 100}); err == nil && p.Interim(); {
					p, err = x.Response(t.Context())
				}
				if err == nil {
					_, err = io.ReadAll(x.Body())
				}
				var bad *message.ProtocolError
				if !errors.As(err, &bad) || message.Unsent(err) {
					t.Errorf("%v, want a ProtocolError", err)
				}
			})
		})
	}
}

func TestResponsesToleratedByTheStandard(t *testing.T) {
	head := get("/")
	head.Method = "HEAD"
	answerBy(t, head, func(p *rawPeer) {
		_ = p.headers(1, true, ":status", "200", "content-length", "42")
	}, func(t *testing.T, _ *http2.ClientConn, x message.ClientExchange) {
		r, err := x.Response(t.Context())
		if err != nil || r.Length != 42 {
			t.Errorf("%+v, %v", r, err)
		}
		if n, err := x.Body().Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("content: %d, %v", n, err)
		}
	})
}

func TestRefusedRequestsAreUnsent(t *testing.T) {
	for name, answer := range map[string]func(p *rawPeer){
		"REFUSED_STREAM":        func(p *rawPeer) { _ = p.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream) },
		"GOAWAY":                func(p *rawPeer) { _ = p.WriteGoAway(0, xhttp2.ErrCodeNo, nil) },
		"GOAWAY with an error":  func(p *rawPeer) { _ = p.WriteGoAway(0, xhttp2.ErrCodeEnhanceYourCalm, nil) },
		"GOAWAY, then a closed": func(p *rawPeer) { _ = p.WriteGoAway(0, xhttp2.ErrCodeNo, nil); _ = p.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			answerBy(t, get("/"), answer, func(t *testing.T, _ *http2.ClientConn, x message.ClientExchange) {
				if _, err := x.Response(t.Context()); !message.Unsent(err) {
					t.Errorf("%v is not unsent", err)
				}
			})
		})
	}
}

func TestBrokenRequestsAreNotUnsent(t *testing.T) {
	for name, answer := range map[string]func(p *rawPeer){
		"RST_STREAM":           func(p *rawPeer) { _ = p.WriteRSTStream(1, xhttp2.ErrCodeCancel) },
		"closed":               func(p *rawPeer) { _ = p.conn.Close() },
		"GOAWAY with an error": func(p *rawPeer) { _ = p.WriteGoAway(1, xhttp2.ErrCodeInternal, nil) },
		"GOAWAY, then closed":  func(p *rawPeer) { _ = p.WriteGoAway(1, xhttp2.ErrCodeNo, nil); _ = p.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			answerBy(t, get("/"), answer, func(t *testing.T, _ *http2.ClientConn, x message.ClientExchange) {
				if _, err := x.Response(t.Context()); err == nil || message.Unsent(err) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestRequestsThatNeverLeftAreUnsent breaks a connection on which one request is being
// written and another one waits.
func TestRequestsThatNeverLeftAreUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		first, err := client.Open(t.Context(), get("/"), true)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it hangs in the write
		second, err := client.Open(t.Context(), get("/"), true)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if _, err := first.Response(t.Context()); err == nil || message.Unsent(err) {
			t.Errorf("the first request: %v", err)
		}
		if _, err := second.Response(t.Context()); !message.Unsent(err) {
			t.Errorf("the second request: %v", err)
		}
		<-client.Done()
	})
}

// TestServersThatDoNotReadHoldNobody has a server that takes nothing: calls wait for
// no longer than their contexts.
func TestServersThatDoNotReadHoldNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		x, err := client.Open(ctx, post("/"), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Write(make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		if _, err := x.Response(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Response: %v", err)
		}
		_ = x.Close()
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("it took %v", waited)
		}
		_ = client.Close()
		_ = s.Close()
	})
}

func TestGoAwayLetsTheRestFinish(t *testing.T) {
	answerBy(t, get("/"), func(p *rawPeer) {
		_ = p.WriteGoAway(1, xhttp2.ErrCodeNo, nil)
		synctest.Wait()
	}, func(t *testing.T, client *http2.ClientConn, x message.ClientExchange) {
		if client.Usable() {
			t.Error("the connection is usable")
		}
		if _, err := client.Open(t.Context(), get("/"), true); !errors.Is(err, http2.ErrDraining) || !message.Unsent(err) {
			t.Errorf("Open: %v", err)
		}
		if client.Active() != 1 {
			t.Errorf("%d requests", client.Active())
		}
		_ = x.Close()
		<-client.Done()
	})
}

func TestServersLimitOfStreamsIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = http2.Serve(ctx, s, http2.ServerConfig{MaxStreams: 2}, hold) })
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		var open []message.ClientExchange
		for range 2 {
			x, err := client.Open(t.Context(), get("/"), true)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, x)
			synctest.Wait()
		}
		if client.Usable() || client.Active() != 2 {
			t.Errorf("usable: %v with %d requests", client.Usable(), client.Active())
		}
		if _, err := client.Open(t.Context(), get("/"), true); !errors.Is(err, http2.ErrTooManyStreams) || !message.Unsent(err) {
			t.Errorf("third request: %v", err)
		}
		_ = open[0].Close()
		synctest.Wait()
		if x, err := client.Open(t.Context(), get("/"), true); err != nil {
			t.Errorf("after one ended: %v", err)
		} else {
			_ = x.Close()
		}
		_ = open[1].Close()
		_ = client.Close()
		cancel()
		wg.Wait()
	})
}

func TestUpgradesNeedTheServersOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		p := newRawPeer(t, s)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.ReadFull(s, make([]byte, len(xhttp2.ClientPreface)))
			p.listen()
			_ = p.WriteSettings()
		})
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		r := get("/")
		r.Protocol = "websocket"
		if _, err := client.Open(t.Context(), r, false); !errors.Is(err, http2.ErrNoUpgrade) || !message.Unsent(err) {
			t.Errorf("Open: %v", err)
		}
		_ = client.Close()
		wg.Wait()
		_ = s.Close()
		p.reading.Wait()
	})
}

func TestSilentPeersAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, _ := http2.NewClient(c, http2.ClientConfig{KeepAlive: 20 * time.Second, KeepAliveTimeout: 10 * time.Second})
		go func() { _, _ = io.Copy(io.Discard, s) }()
		start := time.Now()
		<-client.Done()
		if waited := time.Since(start); waited < 30*time.Second || waited > 35*time.Second {
			t.Errorf("noticed after %v", waited)
		}
		_ = s.Close()
	})
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- http2.Serve(t.Context(), s, http2.ServerConfig{IdleTimeout: time.Minute, KeepAlive: 10 * time.Second}, answerKiB())
		}()
		client, _ := http2.NewClient(c, http2.ClientConfig{})
		for range 10 {
			time.Sleep(50 * time.Second)
			fetch(t, client, get("/"), "")
		}
		start := time.Now()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited < time.Minute || waited > 3*time.Minute {
			t.Errorf("closed after %v", waited)
		}
		<-client.Done()
	})
}
