package http2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Discards, as limits.go has them.
const (
	discardTime = 5 * time.Second
	maxDiscard  = 256 << 10
	firstWindow = 65535
)

// early answers at once with content, whatever the request still has to say.
func early(_ context.Context, x message.Exchange) {
	_ = x.Respond(&message.Response{Status: 301, Length: 5}, false)
	_, _ = io.WriteString(x, "moved")
	_ = x.Close(nil)
}

func (p *rawPeer) complete(id uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends[id]
}

// credit is what the peer got for a stream besides its first window.
func (p *rawPeer) credit(id uint32) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.windows[id]
}

// upload sends content as far as credit goes, and returns how much was sent.
func (p *rawPeer) upload(id uint32, octets int) (sent int) {
	for {
		synctest.Wait()
		n := min(octets-sent, 16<<10, firstWindow+int(p.credit(id))-sent)
		if n == 0 {
			return sent
		}
		if err := p.WriteData(id, false, make([]byte, n)); err != nil {
			p.t.Fatal(err)
		}
		sent += n
	}
}

// TestAnswerBeforeTheRequestsEndIsNotReset tells apart the answer and the reset that may
// follow it (RFC 9113, 8.1), by all the time that there is.
func TestAnswerBeforeTheRequestsEndIsNotReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, handled(early), func(p *rawPeer) {
			_ = p.request(1, false)
			if sent := p.upload(1, 10<<20); sent != firstWindow+maxDiscard {
				t.Errorf("%d octets could be sent", sent)
			}
			time.Sleep(discardTime - time.Millisecond)
			synctest.Wait()
			if _, ok := p.reset(1); ok || !p.complete(1) {
				t.Errorf("response is complete: %v; stream was reset: %v", p.complete(1), ok)
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeNo {
				t.Errorf("stream was reset: %v, with %v", ok, code)
			}
		})
	})
}

func TestRestOfAnAnsweredRequestMayCome(t *testing.T) {
	for name, end := range map[string]func(p *rawPeer) error{
		"whole":       func(p *rawPeer) error { return p.WriteData(1, true, make([]byte, 100)) },
		"in trailers": func(p *rawPeer) error { return p.headers(1, true, "x-sum", "1") },
		"cut short":   func(p *rawPeer) error { return p.WriteData(1, true, nil) },
		"padded":      func(p *rawPeer) error { return p.WriteDataPadded(1, true, make([]byte, 100), make([]byte, 100)) },
		"reset":       func(p *rawPeer) error { return p.WriteRSTStream(1, xhttp2.ErrCodeCancel) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var refused []*message.ProtocolError
				server := handled(early)
				server.Config.OnError = func(err *message.ProtocolError) { refused = append(refused, err) }
				attack(t, server, func(p *rawPeer) {
					length := 200<<10 + 100
					if name == "in trailers" {
						length -= 100
					}
					_ = p.request(1, false, "content-length", fmt.Sprint(length))
					if sent := p.upload(1, 200<<10); sent != 200<<10 {
						t.Errorf("%d octets could be sent", sent)
					}
					if err := end(p); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * discardTime)
					_ = p.request(3, true)
					synctest.Wait()
					if _, ok := p.reset(1); ok || !p.complete(1) || p.statusOf(3) != "301" || len(refused) > 0 {
						t.Errorf("first: complete %v, reset %v; next: %q; refused: %v", p.complete(1), ok, p.statusOf(3), refused)
					}
				})
			})
		})
	}
}

// TestContentThatNobodyReadGivesCredit: the handler leaves a full window unread.
func TestContentThatNobodyReadGivesCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		attack(t, handled(func(ctx context.Context, x message.Exchange) {
			<-answer
			early(ctx, x)
		}), func(p *rawPeer) {
			_ = p.request(1, false)
			if sent := p.upload(1, 10<<20); sent != firstWindow {
				t.Errorf("%d octets could be sent before the answer", sent)
			}
			close(answer)
			synctest.Wait()
			if n := p.credit(1); n != firstWindow {
				t.Errorf("credit for %d octets", n)
			}
		})
	})
}

func TestAnsweredRequestsLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 40
		server := handled(early)
		server.Config.MaxStreams = streams
		attack(t, server, func(p *rawPeer) {
			for i := range 10 * streams {
				_ = p.request(uint32(2*i+1), false)
				synctest.Wait()
			}
			open := 0
			for i := range 10 * streams {
				code, ok := p.reset(uint32(2*i + 1))
				switch {
				case !p.complete(uint32(2*i + 1)):
					t.Fatalf("request %d was not answered", i)
				case !ok:
					open++
				case code != xhttp2.ErrCodeNo:
					t.Fatalf("request %d was reset with %v", i, code)
				case open > 0:
					t.Fatalf("request %d was reset, and an older one not", i)
				}
			}
			if open != streams/4 {
				t.Errorf("%d of %d are still open", open, streams)
			}
			time.Sleep(discardTime)
			synctest.Wait()
			for i := range 10 * streams {
				if _, ok := p.reset(uint32(2*i + 1)); !ok {
					t.Errorf("request %d is still open", i)
				}
			}
		})
	})
}

// TestEndingADeclinedRequestIsNoFlood has many clients that stop to send when they see
// the answer.
func TestEndingADeclinedRequestIsNoFlood(t *testing.T) {
	for name, end := range map[string]func(p *rawPeer, id uint32) error{
		"reset": func(p *rawPeer, id uint32) error { return p.WriteRSTStream(id, xhttp2.ErrCodeNo) },
		"end": func(p *rawPeer, id uint32) error {
			_ = p.WriteData(id, true, []byte("x"))
			return p.WritePing(true, [8]byte{'o', 'v', 'e', 'r'})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refuse := func(_ context.Context, x message.Exchange) { _ = x.Respond(&message.Response{Status: 403}, true) }
				attack(t, handled(refuse), func(p *rawPeer) {
					const last = 2*12_000 + 1
					for id := uint32(1); id <= last; id += 2 {
						_ = p.request(id, false)
						synctest.Wait()
						if err := end(p, id); err != nil {
							t.Fatalf("stream %d: %v", id, err)
						}
					}
					synctest.Wait()
					if !p.complete(last) {
						t.Error("the last request was not answered")
					}
				})
			})
		})
	}
}

func TestDrainWaitsForAnsweredRequests(t *testing.T) {
	for name, c := range map[string]struct {
		end   bool
		after time.Duration
	}{"that end": {true, 0}, "that do not end": {false, discardTime}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c1, s := net.Pipe()
				server := handled(early)
				served := make(chan error, 1)
				go func() { served <- server.Serve(context.Background(), s) }()
				p := newRawPeer(t, c1)
				p.listen()
				p.greet()
				_ = p.request(1, false)
				synctest.Wait()
				begun := time.Now()
				server.Drain()
				_ = p.WritePing(true, [8]byte{'d', 'r', 'a', 'i', 'n'})
				synctest.Wait()
				if _, ok := p.reset(1); ok {
					t.Error("the drain resets the stream")
				}
				if c.end {
					_ = p.WriteData(1, true, nil)
				}
				if err := <-served; err != nil {
					t.Errorf("Serve: %v", err)
				}
				if took := time.Since(begun); took != c.after {
					t.Errorf("over after %v", took)
				}
				_ = c1.Close()
				p.reading.Wait()
			})
		})
	}
}

// TestRefusedHeadsAreAnswered: nobody handles these requests, but they have answers too.
func TestRefusedHeadsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, handled(early), func(p *rawPeer) {
			p.longHeaders(1, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a", "x", strings.Repeat("y", 70<<10))
			if sent := p.upload(1, 10<<20); sent != firstWindow+maxDiscard {
				t.Errorf("%d octets could be sent", sent)
			}
			if _, ok := p.reset(1); ok || p.statusOf(1) != "431" {
				t.Errorf("status %q, reset %v", p.statusOf(1), ok)
			}
			time.Sleep(discardTime)
			synctest.Wait()
			if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeNo {
				t.Errorf("stream was reset: %v, with %v", ok, code)
			}
		})
	})
}

// TestSuccessIsResetAtOnce: nobody listens any more, to a tunnel or an upload that goes on.
func TestSuccessIsResetAtOnce(t *testing.T) {
	for name, h := range map[string]message.Handler{
		"tunnel": func(_ context.Context, x message.Exchange) {
			if s, err := x.Switch(&message.Response{Status: 200}); err == nil {
				_ = s.CloseWrite()
			}
		},
		"response": func(_ context.Context, x message.Exchange) { _ = x.Respond(&message.Response{Status: 204}, true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attack(t, handled(h), func(p *rawPeer) {
					if name == "tunnel" {
						_ = p.headers(1, false, ":method", "CONNECT", ":authority", "a:80")
					} else {
						_ = p.request(1, false)
					}
					synctest.Wait()
					if code, ok := p.reset(1); !ok || code != xhttp2.ErrCodeNo {
						t.Errorf("stream was reset: %v, with %v", ok, code)
					}
				})
			})
		})
	}
}

// TestCurlSeesTheAnswerToWhatItStillSends: it lost the answer when the reset came along.
func TestCurlSeesTheAnswerToWhatItStillSends(t *testing.T) {
	curl := roottest.Program(t, "curl")
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("x"), 50<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]message.Handler{
		"redirect":        early,
		"without content": func(_ context.Context, x message.Exchange) { _ = x.Respond(&message.Response{Status: 301}, true) },
		"after some": func(ctx context.Context, x message.Exchange) {
			_, _ = io.CopyN(io.Discard, x.Body(), 1<<20)
			early(ctx, x)
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, handled(h))
			for range 3 {
				out, err := exec.Command(curl, "-sS", "--max-time", "20", "--http2-prior-knowledge", "-T", large, "-w", "%{response_code}",
					"http://"+addr.String()+"/").CombinedOutput()
				if s := string(out); err != nil || s != "301" && s != "moved301" {
					t.Errorf("curl: %v: %q", err, s)
				}
			}
		})
	}
}
