package hbone_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// A peer that grants all the credit there is and stops reading must not make us
// hold a large buffer for each of its streams; when it reads again, all goes on.
func TestDeafPeerBoundsWhatIsHeld(t *testing.T) {
	const streams, some, limit = 100, 64 << 20, time.Minute
	bytes := make([]byte, 1<<20)
	flood := func() *net.TCPConn {
		proxy, app := tcpConns(t)
		go func() {
			defer app.Close()
			for {
				if _, err := app.Write(bytes); err != nil {
					return
				}
			}
		}()
		return proxy.(*net.TCPConn)
	}
	server := &hbone.Server{Handler: func(ctx context.Context, r *hbone.ServerRequest) {
		if s, err := r.Accept(hbone.Response{Status: 200}); err == nil {
			_ = s.Join(ctx, flood(), nil)
		}
	}}
	c, s := tcpConns(t)
	served := serve(t, server, s)
	defer func() { _ = c.Close(); <-served }()
	_ = c.SetDeadline(time.Now().Add(limit))
	peer := newRawPeer(t, c)
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	_ = peer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = peer.WriteWindowUpdate(0, 1<<30)
	for i := range uint32(streams) {
		if err := peer.connect(2*i + 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := io.CopyN(io.Discard, c, some); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); hbone.Unsent(server) < hbone.MaxUnsent; time.Sleep(time.Millisecond) {
			if time.Since(begin) > limit {
				t.Fatalf("the streams hold %d octets and no more", hbone.Unsent(server))
			}
		}
		if held := hbone.Unsent(server); held > hbone.MaxUnsent+1<<20 {
			t.Errorf("the streams hold %d octets", held)
		}
	}
}
