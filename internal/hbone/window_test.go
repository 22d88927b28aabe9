package hbone_test

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
)

// A stream that is reset while its bytes wait for the write lock has not used the
// connection's window: the other streams may.
func TestResetGivesUnusedConnectionWindowBack(t *testing.T) {
	const chunk, window = 30_000, 65_535
	c, s := net.Pipe()
	peer := newRawPeer(t, s)
	client, err := hbone.NewClient(c, hbone.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	defer s.Close()
	if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	// A stream's window does not limit; the connection's does.
	settings := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}
	if err := peer.WriteSettings(settings); err != nil {
		t.Fatal(err)
	}
	streams := make(chan hbone.Stream, 2)
	go func() {
		for range 2 {
			st, _, err := client.Open(t.Context(), anyRequest)
			if err != nil {
				t.Error(err)
			}
			streams <- st
		}
	}()
	for opened := 0; opened < 2; {
		f, err := peer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			opened++
			if err := peer.headers(h.StreamID, false, ":status", "200"); err != nil {
				t.Fatal(err)
			}
		}
	}
	one, two := <-streams, <-streams

	// The peer does not read: the first stream's write holds the lock, the second's
	// waits for it.
	write := func(st hbone.Stream, n int) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := st.Write(make([]byte, n))
			done <- err
		}()
		return done
	}
	first := write(one, chunk)
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil { // it is writing
		t.Fatal(err)
	}
	second := write(two, chunk)
	for hbone.WaitingWriters(client) == 0 {
		runtime.Gosched()
	}
	if err := peer.WriteRSTStream(3, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	for client.Streams() > 1 { // the reset has arrived
		runtime.Gosched()
	}
	go func() { _, _ = io.Copy(io.Discard, s) }()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := <-second; err == nil {
		t.Error("write to a stream that was reset succeeded")
	}
	select {
	case err := <-write(one, window-chunk):
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the window of what was never sent is lost to the connection")
	}
}
