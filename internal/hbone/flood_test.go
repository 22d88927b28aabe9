package hbone_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// wantCalm checks that the server ended the connection because of a flood.
func wantCalm(t *testing.T, p *rawPeer) {
	t.Helper()
	code, told := p.ended()
	if !told || code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("connection ended with %v (told: %v), want ENHANCE_YOUR_CALM", code, told)
	}
}

func TestFloodsEndTheConnection(t *testing.T) {
	floods := map[string]func(p *rawPeer, i int) error{
		"ping":     func(p *rawPeer, i int) error { return p.WritePing(false, [8]byte{byte(i)}) },
		"settings": func(p *rawPeer, i int) error { return p.WriteSettings() },
		"ack":      func(p *rawPeer, i int) error { return p.WriteSettingsAck() },
		"priority": func(p *rawPeer, i int) error { return p.WritePriority(uint32(2*i+1), http2.PriorityParam{Weight: 1}) },
		"unknown":  func(p *rawPeer, i int) error { return p.WriteRawFrame(0x77, 0, 0, []byte("x")) },
		"window":   func(p *rawPeer, i int) error { return p.WriteWindowUpdate(0, 1) },
		"empty data": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.connect(1)
			}
			return p.WriteData(1, false, nil)
		},
		"padding only": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.connect(1)
			}
			return p.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{0})
		},
		"rapid reset": func(p *rawPeer, i int) error {
			if err := p.connect(uint32(2*i + 1)); err != nil {
				return err
			}
			return p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		},
		"made you reset": func(p *rawPeer, i int) error {
			if err := p.connect(uint32(2*i + 1)); err != nil {
				return err
			}
			return p.WriteWindowUpdate(uint32(2*i+1), 0)
		},
		"malformed": func(p *rawPeer, i int) error { return p.headers(uint32(2*i+1), true, ":method", "CONNECT") },
		"continuation": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			}
			return p.WriteContinuation(1, false, nil)
		},
		"long continuation": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			}
			return p.WriteContinuation(1, false, p.block("x", strings.Repeat("y", 16000)))
		},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most atomic.Int32
				server := &hbone.Server{MaxStreams: 50, Handler: func(ctx context.Context, r *hbone.ServerRequest) {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					<-ctx.Done() // a handler that is slow, as a connect to a dead address is
				}}
				attack(t, server, func(p *rawPeer) {
					for i := range 30_000 {
						if err := flood(p, i); err != nil {
							break
						}
					}
					wantCalm(t, p)
				})
				if n := most.Load(); n > 50 {
					t.Errorf("%d handlers ran at once, more than the limit of streams", n)
				}
			})
		})
	}
}

// TestDeafPeerIsCutOff asks and never reads the answers.
func TestDeafPeerIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- (&hbone.Server{Handler: hold}).ServeConn(context.Background(), s, nil) }()
		p := newRawPeer(t, c)
		p.greet()
		for i := range 20_000 {
			if err := p.WritePing(false, [8]byte{byte(i)}); err != nil {
				break
			}
		}
		if err := <-served; err == nil {
			t.Error("ServeConn returned nil")
		}
		_ = c.Close()
	})
}

func TestHandshakeIsBounded(t *testing.T) {
	for name, say := range map[string]func(net.Conn){
		"silent":       func(net.Conn) {},
		"half preface": func(c net.Conn) { _, _ = c.Write([]byte(http2.ClientPreface[:10])) },
		"no settings":  func(c net.Conn) { _, _ = c.Write([]byte(http2.ClientPreface)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, c) }()
				go say(c)
				start := time.Now()
				err := (&hbone.Server{Handler: hold}).ServeConn(context.Background(), s, nil)
				if waited := time.Since(start); err == nil || waited < 10*time.Second || waited > 15*time.Second {
					t.Errorf("ServeConn: %v after %v", err, waited)
				}
				_ = c.Close()
			})
		})
	}
}

func TestSilentPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := net.Pipe()
		client, err := hbone.NewClient(c, hbone.ClientConfig{})
		if err != nil {
			t.Fatal(err)
		}
		// The peer greets, answers, and is never heard again.
		go func() { _, _ = io.Copy(io.Discard, s) }()
		p := newRawPeer(t, s)
		_ = p.WriteSettings()
		start := time.Now()
		<-client.Done()
		if waited := time.Since(start); waited < 30*time.Second || waited > 35*time.Second {
			t.Errorf("noticed after %v", waited)
		}
		_ = s.Close()
	})
}

func TestKeepAliveKeepsAQuietTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &hbone.Server{Handler: hold}
		client := tunnelPair(t, pipeConns, server, hbone.ClientConfig{})
		s, _, err := client.Open(t.Context(), anyRequest)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := s.Write([]byte("x")); err != nil || !client.Usable() {
			t.Errorf("after a quiet day: %v, usable %v", err, client.Usable())
		}
		_ = s.Close()
		_ = client.Close()
	})
}

func TestTooLargeHeaderListIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, &hbone.Server{Handler: hold}, func(p *rawPeer) {
			// 1,500 equal fields are short on the wire and long in memory.
			fields := []string{":method", "CONNECT", ":authority", "10.0.0.7:1"}
			for range 1500 {
				fields = append(fields, "x-filler", "0123456789")
			}
			_ = p.headers(1, false, fields...)
			_ = p.connect(3)
			synctest.Wait()
			if got := p.statusOf(1); got != "431" {
				t.Errorf("status %q, want 431", got)
			}
			if got := p.statusOf(3); got != "200" {
				t.Errorf("the next request was answered %q", got)
			}
		})
	})
}

func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attack(t, &hbone.Server{Handler: hold, MaxStreams: 2}, func(p *rawPeer) {
			for id := uint32(1); id <= 5; id += 2 {
				_ = p.connect(id)
			}
			synctest.Wait()
			if code, ok := p.reset(5); !ok || code != http2.ErrCodeRefusedStream {
				t.Errorf("third stream: reset %v %v, want REFUSED_STREAM", ok, code)
			}
			_ = p.WriteRSTStream(1, http2.ErrCodeCancel)
			synctest.Wait() // its handler counts until it has returned
			_ = p.connect(7)
			synctest.Wait()
			if got := p.statusOf(7); got != "200" {
				t.Errorf("after one ended: status %q", got)
			}
		})
	})
}

func TestDataBeyondTheWindowResetsTheStreamOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stay := make(chan struct{})
		defer close(stay)
		server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
			s, err := r.Accept(hbone.Response{Status: 200})
			if err == nil {
				<-ctx.Done() // never reads
				_ = s.Close()
			}
		}}
		attack(t, server, func(p *rawPeer) {
			_ = p.connect(1)
			_ = p.connect(3)
			for range 4 {
				_ = p.WriteData(1, false, make([]byte, 16<<10)) // 65,536: one octet too many
			}
			synctest.Wait()
			if code, ok := p.reset(1); !ok || code != http2.ErrCodeFlowControl {
				t.Errorf("reset %v %v, want FLOW_CONTROL_ERROR", ok, code)
			}
			_ = p.WriteData(3, false, make([]byte, 16<<10))
			synctest.Wait()
			if stats := server.Stats(); len(stats) != 1 || stats[0].Streams != 1 || stats[0].BufferedBytes != 16<<10 {
				t.Errorf("stats %+v, want one stream with 16 KiB", stats)
			}
		})
	})
}

func TestWindowGrowsForAReaderThatKeepsUpOnly(t *testing.T) {
	for _, keepsUp := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
				s, err := r.Accept(hbone.Response{Status: 200})
				if err != nil {
					return
				}
				defer s.Close()
				buf := make([]byte, 16<<10)
				for {
					if _, err := s.Read(buf); err != nil {
						return
					}
					if !keepsUp {
						time.Sleep(100 * time.Millisecond)
					}
				}
			}}
			attack(t, server, func(p *rawPeer) {
				_ = p.connect(1)
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
