package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestRequestsArriveAsTheyWereSent(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		seen := queue[*message.Request]()
		client := connect(t, via, handled(func(_ context.Context, x message.Exchange) {
			seen <- x.Request().Clone()
			_ = x.Respond(&message.Response{Status: 204}, true)
		}))
		for _, r := range []*message.Request{
			get("/"),
			{Method: "DELETE", Scheme: "https", Authority: "[::1]:80", Path: "/a/b", Query: "x=1&y", HasQuery: true,
				Header: message.Header{{Name: "accept", Value: "*/*"}, {Name: "te", Value: "trailers"}, {Name: "x-empty", Value: ""}}},
			{Method: "OPTIONS", Scheme: "http", Authority: "a", Path: "*"},
			{Method: "GET", Scheme: "http", Authority: "a", Path: "/", HasQuery: true},
			{Method: "M-SEARCH", Scheme: "http", Authority: "a", Path: "/", Header: message.Header{{Name: "x-long", Value: strings.Repeat("v", 40<<10)}}},
		} {
			p, body, _ := fetch(t, client, r, "")
			if p.Status != 204 || body != "" || p.Length != 0 {
				t.Errorf("response %+v %q", p, body)
			}
			if diff := cmp.Diff(r, <-seen, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("request (-sent +seen):\n%s", diff)
			}
		}
	})
}

// queue is a channel that no handler waits on.
func queue[T any]() chan T { return make(chan T, 100) }

func TestContentIsEchoed(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		client := connect(t, via, handled(echo))
		for _, size := range []int{1, 100, 16 << 10, 16<<10 + 1, 1 << 20, 5<<20 + 7} {
			want := strings.Repeat("0123456789abc", size/13+1)[:size]
			r := post("/")
			if size%2 == 1 {
				r.Length = int64(size)
			}
			sent := queue[error]()
			x, err := client.Open(t.Context(), r, false)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, err := io.WriteString(x, want)
				sent <- errors.Join(err, x.CloseWrite(nil))
			}()
			p, err := x.Response(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(x.Body())
			if err != nil || string(got) != want || p.Length != r.Length {
				t.Errorf("%d octets: %d came back (length %d), %v", size, len(got), p.Length, err)
			}
			if err := <-sent; err != nil {
				t.Errorf("sending %d octets: %v", size, err)
			}
			_ = x.Close()
		}
	})
}

func TestManyExchangesAtOnce(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		client := connect(t, via, handled(echo))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for j := range 20 {
					content := strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 1+r.IntN(3000))
					if _, got, _ := fetch(t, client, post("/"), content); got != content {
						t.Errorf("exchange %d/%d: other content came back", i, j)
					}
				}
			})
		}
		wg.Wait()
		if n := client.Active(); n != 0 {
			t.Errorf("%d requests are still under way", n)
		}
	})
}

func TestTrailersPassBothWays(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		client := connect(t, via, handled(echo))
		for _, content := range []string{"", "content"} {
			x, err := client.Open(t.Context(), post("/"), false)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(x, content)
			want := message.Header{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}}
			sent := append(want.Clone(), message.Field{Name: "content-length", Value: "7"})
			if err := x.CloseWrite(sent); err != nil {
				t.Fatal(err)
			}
			if _, err := x.Response(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(x.Body())
			if diff := cmp.Diff(want, x.Body().Trailer()); diff != "" || string(got) != content || err != nil {
				t.Errorf("content %q, %v; trailers (-want +got):\n%s", got, err, diff)
			}
			_ = x.Close()
		}
	})
}

func TestHeadsOfOwnFramingAreNeverSent(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		for _, name := range []string{"connection", "transfer-encoding", "content-length", "host", "upgrade", "te"} {
			if x.Request().Header.Has(name) {
				t.Errorf("the request has %s", name)
			}
		}
		_ = x.Respond(&message.Response{Status: 200, Length: 5, Header: message.Header{
			{Name: "connection", Value: "close"}, {Name: "content-length", Value: "99"}, {Name: "x", Value: "y"},
		}}, false)
		_, _ = io.WriteString(struct{ io.Writer }{x}, "hello")
		_ = x.Close(nil)
	}))
	r := get("/")
	for _, name := range []string{"connection", "transfer-encoding", "content-length", "host", "upgrade", "te"} {
		r.Header.Add(name, "chunked")
	}
	p, body, _ := fetch(t, client, r, "")
	if body != "hello" || p.Length != 5 || p.Header.Get("x") != "y" || p.Header.Has("connection") {
		t.Errorf("%+v %q", p, body)
	}
}

func TestInvalidFieldsAreNotSent(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		if err := x.Respond(&message.Response{Status: 200, Header: message.Header{{Name: "x", Value: "a\r\nb"}}}, true); err == nil {
			t.Error("a response with a line break was sent")
		}
		if err := x.Respond(&message.Response{Status: 200}, true); err != nil {
			t.Error(err)
		}
	}))
	for _, f := range []message.Field{{Name: "X-Upper", Value: ""}, {Name: ":path", Value: "/"}, {Name: "x", Value: "\x00"}, {Name: "", Value: ""}} {
		r := get("/")
		r.Header = message.Header{f}
		if _, err := client.Open(t.Context(), r, true); err == nil || !message.Unsent(err) {
			t.Errorf("field %q: %v", f, err)
		}
	}
	for _, path := range []string{"/a b", "/a\nb", "/\x80"} {
		if _, err := client.Open(t.Context(), get(path), true); err == nil {
			t.Errorf("path %q was sent", path)
		}
	}
	if p, _, _ := fetch(t, client, get("/"), ""); p.Status != 200 {
		t.Errorf("then: %d", p.Status)
	}
}

func TestInterimResponsesComeFirst(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		_ = x.Inform(&message.Response{Status: 103, Header: message.Header{{Name: "link", Value: "</a>"}}})
		_, _ = io.Copy(io.Discard, x.Body()) // sends 100
		_ = x.Respond(&message.Response{Status: 200}, true)
	}))
	r := post("/")
	r.ExpectContinue = true
	x, err := client.Open(t.Context(), r, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	for _, want := range []int{103, 100} {
		p, err := x.Response(t.Context())
		if err != nil || p.Status != want || !p.Interim() {
			t.Fatalf("%+v, %v; want %d", p, err, want)
		}
		if want == 103 && p.Header.Get("link") != "</a>" {
			t.Errorf("103 has %v", p.Header)
		}
	}
	_, _ = io.WriteString(x, "content")
	_ = x.CloseWrite(nil)
	if p, err := x.Response(t.Context()); err != nil || p.Status != 200 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestResponsesWithoutContent(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		status := 200
		switch x.Request().Path {
		case "/304":
			status = 304
		case "/204":
			status = 204
		}
		_ = x.Respond(&message.Response{Status: status, Length: 42}, x.Request().Path != "/204")
		if _, err := x.Write([]byte("x")); err == nil {
			t.Error("content was sent where there is none")
		}
		_ = x.Close(nil)
	}))
	head := get("/head")
	head.Method = "HEAD"
	for r, length := range map[*message.Request]int64{head: 42, get("/304"): 42, get("/204"): 0, get("/end"): 0} {
		p, body, _ := fetch(t, client, r, "")
		if p.Length != length || body != "" {
			t.Errorf("%s %s: length %d, want %d; content %q", r.Method, r.Path, p.Length, length, body)
		}
	}
}

func TestTooLittleContentBreaksTheResponseOff(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		_ = x.Respond(&message.Response{Status: 200, Length: 10}, false)
		if _, err := x.Write([]byte("12345678901")); err == nil {
			t.Error("more than the length was sent")
		}
		_, _ = x.Write([]byte("12345"))
		if err := x.Close(nil); err == nil {
			t.Error("a short response was closed in order")
		}
	}))
	x, err := client.Open(t.Context(), get("/"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	if _, err := x.Response(t.Context()); err != nil {
		return // broken off before the head was read
	}
	if _, err := io.ReadAll(x.Body()); err == nil {
		t.Error("a short response passed for a whole one")
	}
}

func TestUnfinishedHandlersBreakTheExchangeOff(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		if x.Request().Path == "/half" {
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			_, _ = x.Write([]byte("half"))
			_ = x.Flush()
		}
	}))
	for _, path := range []string{"/none", "/half"} {
		x, err := client.Open(t.Context(), get(path), true)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.Response(t.Context())
		if err == nil {
			_, err = io.ReadAll(x.Body())
		}
		var reset *message.ResetError
		if !errors.As(err, &reset) || !reset.Remote || message.Unsent(err) {
			t.Errorf("%s: %v", path, err)
		}
		_ = x.Close()
	}
}

func TestAbortCarriesItsCode(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		x.Abort(&message.ResetError{Code: 0x7}) // REFUSED_STREAM
	}))
	x, err := client.Open(t.Context(), get("/"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	_, err = x.Response(t.Context())
	var reset *message.ResetError
	if !message.Unsent(err) || !errors.As(err, &reset) || reset.Code != 0x7 {
		t.Errorf("%v", err)
	}
}

func TestClientThatGivesUpEndsTheContext(t *testing.T) {
	ended := queue[error]()
	begun := queue[bool]()
	client := connect(t, tcpConns, handled(func(ctx context.Context, x message.Exchange) {
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		begun <- true
		<-derived.Done()
		ended <- derived.Err()
	}))
	x, err := client.Open(t.Context(), get("/"), true)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	_ = x.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := x.Response(t.Context()); err == nil {
		t.Error("there is a response after Close")
	}
}

func TestContextOfOpenBoundsTheExchange(t *testing.T) {
	client := connect(t, tcpConns, handled(func(ctx context.Context, x message.Exchange) {
		_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
		_ = x.Flush()
		<-ctx.Done()
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	x, err := client.Open(ctx, post("/"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	if _, err := x.Response(t.Context()); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	wrote := queue[error]()
	go func() {
		for {
			if _, err := x.Write(make([]byte, 64<<10)); err != nil {
				wrote <- err
				return
			}
		}
	}()
	cancel(cause)
	if _, err := x.Body().Read(make([]byte, 10)); !errors.Is(err, cause) {
		t.Errorf("Read: %v", err)
	}
	if err := <-wrote; !errors.Is(err, cause) {
		t.Errorf("Write: %v", err)
	}
}

func TestEarlyResponseEndsTheRequest(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		_ = x.Respond(&message.Response{Status: 413, Length: 3}, false)
		_, _ = x.Write([]byte("big"))
		_ = x.Close(nil)
	}))
	x, err := client.Open(t.Context(), post("/"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	_ = x.Flush()
	p, err := x.Response(t.Context())
	if err != nil || p.Status != 413 {
		t.Fatalf("%+v, %v", p, err)
	}
	if body, err := io.ReadAll(x.Body()); err != nil || string(body) != "big" {
		t.Errorf("%q, %v", body, err)
	}
	for err == nil {
		_, err = x.Write(make([]byte, 64<<10))
	}
	var reset *message.ResetError
	if !errors.As(err, &reset) || reset.Code != 0 || !reset.Remote {
		t.Errorf("Write ended with %v", err)
	}
}

// TestReadingEndsWithTheResponse has a client that neither sends the rest nor ends it.
func TestReadingEndsWithTheResponse(t *testing.T) {
	for name, answer := range map[string]func(x message.Exchange){
		"without content": func(x message.Exchange) { _ = x.Respond(&message.Response{Status: 204}, true) },
		"with content": func(x message.Exchange) {
			_ = x.Respond(&message.Response{Status: 200, Length: 2}, false)
			_, _ = io.WriteString(x, "ok")
			_ = x.Close(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read := make(chan error, 1)
				attack(t, handled(func(_ context.Context, x message.Exchange) {
					var reading sync.WaitGroup
					defer reading.Wait()
					reading.Go(func() {
						_, err := io.ReadAll(x.Body())
						read <- err
					})
					answer(x)
				}), func(p *rawPeer) {
					_ = p.request(1, false)
					_ = p.WriteData(1, false, []byte("some"))
					synctest.Wait()
					select {
					case err := <-read:
						if err == nil {
							t.Error("what came passes for whole")
						}
					default:
						t.Error("the rest is still waited for")
					}
				})
			})
		})
	}
}

func TestUpgradesAndTunnels(t *testing.T) {
	onAll(t, func(t *testing.T, via conns) {
		client := connect(t, via, handled(func(_ context.Context, x message.Exchange) {
			if r := x.Request(); r.Protocol == "websocket" && (r.Method != "GET" || r.Path != "/chat" || r.Header.Has("sec-websocket-key")) {
				t.Errorf("the upgrade came as %+v", r)
			}
			s, err := x.Switch(&message.Response{Status: 101, Header: message.Header{{Name: "sec-websocket-accept", Value: "x"}, {Name: "a", Value: "b"}}})
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
		}))
		upgrade := get("/chat")
		upgrade.Protocol = "websocket"
		upgrade.Header = message.Header{{Name: "sec-websocket-key", Value: "k"}, {Name: "sec-websocket-version", Value: "13"}}
		connectTo := &message.Request{Method: "CONNECT", Authority: "db:5432", Length: -1}
		for r, status := range map[*message.Request]int{upgrade: 101, connectTo: 200} {
			x, err := client.Open(t.Context(), r, false)
			if err != nil {
				t.Fatal(err)
			}
			p, err := x.Response(t.Context())
			if err != nil || p.Status != status || p.Header.Get("a") != "b" || p.Header.Has("sec-websocket-accept") {
				t.Fatalf("%+v, %v", p, err)
			}
			s, err := x.Stream()
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"hello", "world"} {
				_, _ = io.WriteString(s, word)
				got := make([]byte, 5)
				if _, err := io.ReadFull(s, got); err != nil || string(got) != word {
					t.Errorf("%q, %v", got, err)
				}
			}
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			_ = s.Close()
			_ = x.Close()
		}
	})
}

func TestUpgradeThatTheServerDoesNotWantIsNoSuccess(t *testing.T) {
	client := connect(t, tcpConns, handled(func(_ context.Context, x message.Exchange) {
		if err := x.Respond(&message.Response{Status: 200, Length: 4}, false); err == nil {
			t.Error("200 was sent, which accepts")
		}
		_ = x.Respond(&message.Response{Status: 502, Length: 2}, false)
		_, _ = x.Write([]byte("no"))
		_ = x.Close(nil)
	}))
	r := get("/chat")
	r.Protocol = "websocket"
	x, err := client.Open(t.Context(), r, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	p, err := x.Response(t.Context())
	if err != nil || p.Status != 502 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := x.Stream(); err == nil {
		t.Error("there is a stream")
	}
	if got, err := io.ReadAll(x.Body()); err != nil || string(got) != "no" {
		t.Errorf("%q, %v", got, err)
	}
}
