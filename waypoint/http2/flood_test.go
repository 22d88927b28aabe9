package http2_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// hold is a handler that waits for its client to go.
func hold(ctx context.Context, x message.Exchange) { <-ctx.Done() }

// wantCalm checks that the server ended the connection because of a flood.
func wantCalm(t *testing.T, p *rawPeer) {
	t.Helper()
	code, told := p.ended()
	if !told || code != xhttp2.ErrCodeEnhanceYourCalm {
		t.Errorf("connection ended with %v (told: %v), want ENHANCE_YOUR_CALM", code, told)
	}
}

func TestFloodsEndTheConnection(t *testing.T) {
	floods := map[string]func(p *rawPeer, i int) error{
		"ping":     func(p *rawPeer, i int) error { return p.WritePing(false, [8]byte{byte(i)}) },
		"settings": func(p *rawPeer, i int) error { return p.WriteSettings() },
		"many settings": func(p *rawPeer, i int) error {
			return p.WriteSettings(slices.Repeat([]xhttp2.Setting{{ID: xhttp2.SettingInitialWindowSize, Val: uint32(i)}}, 100)...)
		},
		"ack":      func(p *rawPeer, i int) error { return p.WriteSettingsAck() },
		"priority": func(p *rawPeer, i int) error { return p.WritePriority(uint32(2*i+1), xhttp2.PriorityParam{Weight: 1}) },
		"unknown":  func(p *rawPeer, i int) error { return p.WriteRawFrame(0x77, 0, 0, []byte("x")) },
		"window":   func(p *rawPeer, i int) error { return p.WriteWindowUpdate(0, 1) },
		"empty data": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.request(1, false)
			}
			return p.WriteData(1, false, nil)
		},
		"padding only": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.request(1, false)
			}
			return p.WriteRawFrame(xhttp2.FrameData, xhttp2.FlagDataPadded, 1, []byte{0})
		},
		"rapid reset": func(p *rawPeer, i int) error {
			if err := p.request(uint32(2*i+1), false); err != nil {
				return err
			}
			return p.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel)
		},
		"made you reset": func(p *rawPeer, i int) error {
			if err := p.request(uint32(2*i+1), false); err != nil {
				return err
			}
			return p.WriteWindowUpdate(uint32(2*i+1), 0)
		},
		"malformed": func(p *rawPeer, i int) error { return p.headers(uint32(2*i+1), true, ":method", "GET") },
		"continuation": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1})
			}
			return p.WriteContinuation(1, false, nil)
		},
		"long continuation": func(p *rawPeer, i int) error {
			if i == 0 {
				return p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1})
			}
			return p.WriteContinuation(1, false, p.block("x", strings.Repeat("y", 16000)))
		},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most atomic.Int32
				server := &http2.Server{Config: http2.ServerConfig{MaxStreams: 50}, Handler: func(ctx context.Context, _ message.Exchange) {
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
		go func() {
			served <- http2.Serve(context.Background(), s, http2.ServerConfig{HeadTimeout: 10 * time.Second}, hold)
		}()
		p := newRawPeer(t, c)
		p.greet()
		for i := range 20_000 {
			if err := p.WritePing(false, [8]byte{byte(i)}); err != nil {
				break
			}
		}
		if err := <-served; err == nil {
			t.Error("Serve returned nil")
		}
		_ = c.Close()
	})
}

func TestHandshakeIsBounded(t *testing.T) {
	for name, say := range map[string]func(net.Conn){
		"silent":       func(net.Conn) {},
		"half preface": func(c net.Conn) { _, _ = c.Write([]byte(xhttp2.ClientPreface[:10])) },
		"no settings":  func(c net.Conn) { _, _ = c.Write([]byte(xhttp2.ClientPreface)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, c) }()
				go say(c)
				start := time.Now()
				err := http2.Serve(context.Background(), s, http2.ServerConfig{HeadTimeout: 10 * time.Second}, hold)
				if waited := time.Since(start); err == nil || waited < 10*time.Second || waited > 15*time.Second {
					t.Errorf("Serve: %v after %v", err, waited)
				}
				_ = c.Close()
			})
		})
	}
}
