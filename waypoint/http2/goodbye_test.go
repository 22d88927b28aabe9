package http2_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// TestWhoSaysGoodbyeIsNotReset: what a client says behind a GOAWAY with an error is
// read, so that the end of the connection is an orderly one.
func TestWhoSaysGoodbyeIsNotReset(t *testing.T) {
	addr := listen(t, handled(early))
	for range 100 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		f := xhttp2.NewFramer(c, c)
		_, _ = io.WriteString(c, xhttp2.ClientPreface)
		_ = f.WriteSettings()
		_ = f.WriteGoAway(0, 0xff, nil)
		_ = f.WritePing(false, [8]byte{'s', 't', 'i', 'l', 'l'})
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("the connection ends with %v", errors.Unwrap(err))
		}
		_ = c.Close()
	}
}
