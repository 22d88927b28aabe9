package inbound_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

// Silent connections of one address neither pile up nor keep others out.
func TestSilentClientLeavesRoomForOthers(t *testing.T) {
	r := newRig(t)
	silent := make([]net.Conn, 0, 65)
	for range 65 {
		c, err := net.Dial("tcp", r.tunnel)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	if o := r.end(); o.err == nil || !strings.Contains(o.err.Error(), "64 connections from 127.0.0.1") {
		t.Errorf("reported %v", o.err)
	}
	lease := r.lease(clientID)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	raw, err := d.DialContext(t.Context(), "tcp", r.tunnel)
	if err != nil {
		t.Fatal(err)
	}
	other := tls.Client(hbone.WrapConn(raw), mtls.Client(lease, lease, []spiffeid.ID{serverID}))
	defer other.Close()
	_ = other.SetDeadline(time.Now().Add(limit))
	if err := other.Handshake(); err != nil {
		t.Errorf("another client: %v", err)
	}
	// Places come back.
	for _, c := range silent {
		_ = c.Close()
	}
	for range 64 {
		r.end()
	}
	r.dial(clientID)
}
