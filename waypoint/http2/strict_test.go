package http2_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

func TestMalformedRequestsReachNoHandler(t *testing.T) {
	good := []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}
	with := func(more ...string) []string { return append(append([]string(nil), good...), more...) }
	for name, fields := range map[string][]string{
		"no method":                 {":scheme", "http", ":path", "/", ":authority", "a"},
		"no scheme":                 {":method", "GET", ":path", "/", ":authority", "a"},
		"no path":                   {":method", "GET", ":scheme", "http", ":authority", "a"},
		"empty path":                {":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"},
		"empty method":              {":method", "", ":scheme", "http", ":path", "/", ":authority", "a"},
		"method with space":         {":method", "GET /admin", ":scheme", "http", ":path", "/", ":authority", "a"},
		"method twice":              with(":method", "GET"),
		"path twice":                append([]string{":path", "/a"}, good...),
		"authority twice":           append([]string{":authority", "b"}, good...),
		"pseudo behind regular":     with("x", "y", ":path", "/b"),
		"unknown pseudo":            with(":version", "2"),
		"status":                    with(":status", "200"),
		"upper case":                with("X-Upper", "y"),
		"space in a name":           with("x y", "z"),
		"colon in a name":           with("x:", "z"),
		"empty name":                with("", "z"),
		"line feed":                 with("x", "a\nb: c"),
		"carriage return":           with("x", "a\rb"),
		"NUL":                       with("x", "a\x00b"),
		"control":                   with("x", "a\x01b"),
		"DEL":                       with("x", "a\x7fb"),
		"space in front":            with("x", " a"),
		"tab behind":                with("x", "a\t"),
		"connection":                with("connection", "close"),
		"keep-alive":                with("keep-alive", "timeout=5"),
		"proxy-connection":          with("proxy-connection", "keep-alive"),
		"transfer-encoding":         with("transfer-encoding", "chunked"),
		"upgrade":                   with("upgrade", "h2c"),
		"te":                        with("te", "gzip"),
		"te and more":               with("te", "trailers, deflate"),
		"content-length twice":      with("content-length", "0", "content-length", "0"),
		"content-length list":       with("content-length", "0, 0"),
		"content-length sign":       with("content-length", "+0"),
		"content-length hex":        with("content-length", "0x0"),
		"content-length huge":       with("content-length", "9999999999999999999"),
		"content-length empty":      with("content-length", ""),
		"content missing":           with("content-length", "5"),
		"two hosts":                 with("host", "a", "host", "a"),
		"other host":                with("host", "b"),
		"CONNECT with path":         {":method", "CONNECT", ":path", "/", ":authority", "a:1"},
		"CONNECT with scheme":       {":method", "CONNECT", ":scheme", "http", ":authority", "a:1"},
		"CONNECT without authority": {":method", "CONNECT"},
		"CONNECT with length":       {":method", "CONNECT", ":authority", "a:1", "content-length", "0"},
		"protocol without CONNECT":  with(":protocol", "websocket"),
		"protocol without path":     {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := 0
				server := &http2.Server{
					Config:  http2.ServerConfig{OnError: func(*message.ProtocolError) { told++ }},
					Handler: func(context.Context, message.Exchange) { t.Error("it reached the handler") },
				}
				attack(t, server, func(p *rawPeer) {
					_ = p.headers(1, true, fields...)
					synctest.Wait()
					if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeProtocol {
						t.Errorf("reset %v %v, want PROTOCOL_ERROR", ok, code)
					}
					if told != 1 {
						t.Errorf("OnError was called %d times", told)
					}
				})
			})
		})
	}
}

func TestRequestsOutsideTheNormalFormAreAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		status string
	}{
		"path without slash":  {[]string{":method", "GET", ":scheme", "http", ":path", "a", ":authority", "a"}, "400"},
		"absolute path":       {[]string{":method", "GET", ":scheme", "http", ":path", "http://a/", ":authority", "a"}, "400"},
		"star":                {[]string{":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"}, "400"},
		"backslash":           {[]string{":method", "GET", ":scheme", "http", ":path", "/a\\b", ":authority", "a"}, "400"},
		"space in the path":   {[]string{":method", "GET", ":scheme", "http", ":path", "/a b", ":authority", "a"}, "400"},
		"fragment":            {[]string{":method", "GET", ":scheme", "http", ":path", "/a#b", ":authority", "a"}, "400"},
		"space in the query":  {[]string{":method", "GET", ":scheme", "http", ":path", "/?a b", ":authority", "a"}, "400"},
		"user information":    {[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@a"}, "400"},
		"no authority":        {[]string{":method", "GET", ":scheme", "http", ":path", "/"}, "400"},
		"other scheme":        {[]string{":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a"}, "400"},
		"unknown expectation": {[]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "expect", "magic"}, "417"},
		"many fields":         {append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}, strings.Split(strings.Repeat("x,y,", 100)+"x,y", ",")...), "431"},
		"large fields":        {[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "x", strings.Repeat("y", 2000), "z", strings.Repeat("y", 64<<10)}, "431"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := handled(func(_ context.Context, x message.Exchange) {
					if x.Request().Path != "/next" {
						t.Error("it reached the handler")
					}
					_ = x.Respond(&message.Response{Status: 204}, true)
				})
				attack(t, server, func(p *rawPeer) {
					p.longHeaders(1, c.fields...)
					_ = p.headers(3, true, ":method", "GET", ":scheme", "http", ":path", "/next", ":authority", "a")
					synctest.Wait()
					if got := p.statusOf(1); got != c.status {
						t.Errorf("status %q, want %s", got, c.status)
					}
					time.Sleep(discardTime)
					synctest.Wait()
					if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeNo {
						t.Errorf("reset %v %v, want NO_ERROR for the rest of the request", ok, code)
					}
					if got := p.statusOf(3); got != "204" {
						t.Errorf("the next request was answered %q", got)
					}
				})
			})
		})
	}
}

func TestNormalFormOfRequests(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		want   message.Request
	}{
		"dots and case": {
			[]string{":method", "GET", ":scheme", "HTTP", ":path", "/a/../b/%7euser/%2f?q=%41", ":authority", "Shop.Example:8080"},
			message.Request{Method: "GET", Scheme: "http", Path: "/b/~user/%2F", Query: "q=%41", HasQuery: true, Authority: "shop.example:8080"},
		},
		"host instead of authority": {
			[]string{":method", "GET", ":scheme", "http", ":path", "/", "host", "A"},
			message.Request{Method: "GET", Scheme: "http", Path: "/", Authority: "a"},
		},
		"host and authority": {
			[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "A", "host", "a"},
			message.Request{Method: "GET", Scheme: "http", Path: "/", Authority: "a"},
		},
		"cookies": {
			[]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a", "cookie", "a=b", "x", "y", "cookie", "c=d", "cookie", "e=f"},
			message.Request{Method: "GET", Scheme: "http", Path: "/", Authority: "a", Header: message.Header{{Name: "cookie", Value: "a=b; c=d; e=f"}, {Name: "x", Value: "y"}}},
		},
		"upgrade": {
			[]string{":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "http", ":path", "/chat", ":authority", "a"},
			message.Request{Method: "GET", Protocol: "websocket", Scheme: "http", Path: "/chat", Authority: "a", Length: -1},
		},
		"tunnel": {
			[]string{":method", "CONNECT", ":authority", "A:443"},
			message.Request{Method: "CONNECT", Authority: "a:443", Length: -1},
		},
		"te and expectation": {
			[]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "te", "trailers", "expect", "100-Continue", "content-length", "3"},
			message.Request{Method: "POST", Scheme: "http", Path: "/", Authority: "a", Length: 3, ExpectContinue: true, Header: message.Header{{Name: "te", Value: "trailers"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attack(t, handled(func(_ context.Context, x message.Exchange) {
					got := *x.Request()
					if len(got.Header) == 0 {
						got.Header = nil
					}
					if diff := cmp.Diff(c.want, got); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
					_ = x.Respond(&message.Response{Status: 404}, true)
				}), func(p *rawPeer) {
					_ = p.headers(1, c.want.Length == 0, c.fields...)
					synctest.Wait()
					if got := p.statusOf(1); got != "404" {
						t.Errorf("status %q", got)
					}
				})
			})
		})
	}
}

func TestContentOtherThanItsLengthIsRefused(t *testing.T) {
	for name, send := range map[string]func(p *rawPeer){
		"too long": func(p *rawPeer) { _ = p.WriteData(1, false, []byte("123456")) },
		"too short": func(p *rawPeer) {
			_ = p.WriteData(1, false, []byte("1234"))
			_ = p.WriteData(1, true, nil)
		},
		"too short with trailers": func(p *rawPeer) {
			_ = p.WriteData(1, false, []byte("1234"))
			_ = p.headers(1, true, "x", "y")
		},
		"pseudo-header field in trailers": func(p *rawPeer) {
			_ = p.WriteData(1, false, []byte("12345"))
			_ = p.headers(1, true, ":path", "/")
		},
		"trailers without end": func(p *rawPeer) {
			_ = p.WriteData(1, false, []byte("12345"))
			_ = p.headers(1, false, "x", "y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attack(t, handled(func(_ context.Context, x message.Exchange) {
					_, err := io.ReadAll(x.Body())
					var bad *message.ProtocolError
					if !errors.As(err, &bad) {
						t.Errorf("the content ended with %v", err)
					}
				}), func(p *rawPeer) {
					_ = p.request(1, false, "content-length", "5")
					send(p)
					synctest.Wait()
					if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeProtocol {
						t.Errorf("reset %v %v, want PROTOCOL_ERROR", ok, code)
					}
				})
			})
		})
	}
}

func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, &http2.Server{Config: http2.ServerConfig{MaxStreams: 2}, Handler: hold}, func(p *rawPeer) {
			for id := uint32(1); id <= 5; id += 2 {
				_ = p.request(id, true)
			}
			synctest.Wait()
			if code, ok := p.reset(5); !ok || code != xhttp2.ErrCodeRefusedStream {
				t.Errorf("third stream: reset %v %v, want REFUSED_STREAM", ok, code)
			}
			if _, ok := p.reset(3); ok {
				t.Error("a stream within the limit was reset")
			}
		})
	})
}

// TestCancelledRequestsCountWhileTheirHandlersRun is what makes a rapid reset useless.
func TestCancelledRequestsCountWhileTheirHandlersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stay := make(chan struct{})
		var running atomic.Int32
		server := &http2.Server{Config: http2.ServerConfig{MaxStreams: 3}, Handler: func(context.Context, message.Exchange) {
			running.Add(1)
			<-stay
		}}
		attack(t, server, func(p *rawPeer) {
			for id := uint32(1); id < 20; id += 2 {
				_ = p.request(id, true)
				_ = p.WriteRSTStream(id, xhttp2.ErrCodeCancel)
			}
			synctest.Wait()
			if n := running.Load(); n != 3 {
				t.Errorf("%d handlers run", n)
			}
			close(stay)
		})
	})
}

func TestDataBeyondTheWindowResetsTheStreamOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, handled(hold), func(p *rawPeer) {
			_ = p.request(1, false)
			_ = p.request(3, false)
			for range 4 {
				_ = p.WriteData(1, false, make([]byte, 16<<10)) // 65,536: one octet too many
			}
			synctest.Wait()
			if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeFlowControl {
				t.Errorf("reset %v %v, want FLOW_CONTROL_ERROR", ok, code)
			}
			if _, ok := p.reset(3); ok {
				t.Error("another stream was reset")
			}
		})
	})
}

func TestWindowGrowsForAReaderThatKeepsUpOnly(t *testing.T) {
	for _, keepsUp := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server := handled(func(_ context.Context, x message.Exchange) {
				buf := make([]byte, 16<<10)
				for {
					if _, err := x.Body().Read(buf); err != nil {
						return
					}
					if !keepsUp {
						time.Sleep(100 * time.Millisecond)
					}
				}
			})
			attack(t, server, func(p *rawPeer) {
				_ = p.request(1, false)
				sent := int64(0)
				for range 400 {
					for {
						p.mu.Lock()
						left := 65535 + p.windows[1] - sent
						p.mu.Unlock()
						if left >= 16<<10 {
							break
						}
						time.Sleep(time.Millisecond)
					}
					_ = p.WriteData(1, false, make([]byte, 16<<10))
					sent += 16 << 10
				}
				time.Sleep(time.Minute)
				p.mu.Lock()
				window := 65535 + p.windows[1] - sent
				p.mu.Unlock()
				if grew := window > 1<<20; grew != keepsUp {
					t.Errorf("reader keeps up: %v; window %d", keepsUp, window)
				}
			})
		})
	}
}

func TestClientsThatTakeNothingAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaveUp := make(chan time.Duration, 1)
		server := handled(func(_ context.Context, x message.Exchange) {
			_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
			start := time.Now()
			for {
				if _, err := x.Write(make([]byte, 16<<10)); err != nil {
					gaveUp <- time.Since(start)
					return
				}
			}
		})
		server.Config.StallTimeout = time.Minute
		attack(t, server, func(p *rawPeer) {
			_ = p.request(1, true)
			if waited := <-gaveUp; waited != time.Minute {
				t.Errorf("given up after %v", waited)
			}
			synctest.Wait()
			if _, ok := p.reset(1); !ok {
				t.Error("the stream was not reset")
			}
		})
	})
}

// TestSmallResponseIsOneWrite looks at what leaves together.
func TestSmallResponseIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, handled(answerKiB()), func(p *rawPeer) {
			synctest.Wait() // nothing else is being written
			_ = p.request(1, true)
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.data[1]) != 1<<10 || !p.ends[1] || p.status[1] != "200" {
				t.Errorf("status %q, %d octets, ended %v", p.status[1], len(p.data[1]), p.ends[1])
			}
			if p.emptyData > 0 {
				t.Error("END_STREAM came in a frame of its own")
			}
		})
	})
}
