package inbound_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
)

// A peer that cannot prove a valid identity of this trust domain does not get as
// far as a request, and the application never hears of it.
func TestPeerOfNoValidIdentityIsRefused(t *testing.T) {
	const client = "spiffe://cluster.local/ns/shop/sa/client"
	foreign := forge.Root(t, "cluster.local").Intermediate(t) // the same name, another root
	for name, svid := range map[string]*x509svid.SVID{
		"foreign root":         foreign.Leaf(t, client),
		"foreign trust domain": forge.Root(t, "other.example").Intermediate(t).Leaf(t, "spiffe://other.example/ns/shop/sa/client"),
		"expired":              foreign.Leaf(t, client, forge.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))),
		"no certificate":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			raw, err := net.Dial("tcp", r.tunnel)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
			if svid != nil {
				chain := tls.Certificate{PrivateKey: svid.PrivateKey}
				for _, c := range svid.Certificates {
					chain.Certificate = append(chain.Certificate, c.Raw)
				}
				cfg.Certificates = []tls.Certificate{chain}
			}
			c := tls.Client(hbone.WrapConn(raw), cfg)
			_ = c.SetDeadline(time.Now().Add(limit))
			if err := c.Handshake(); err == nil {
				// In TLS 1.3 the client is done before the server has looked at it.
				_, err = c.Read(make([]byte, 1))
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the peer saw %v, want an alert", err)
				}
			}
			var failed *handshake.Error
			if o := r.end(); !errors.As(o.err, &failed) {
				t.Errorf("reported %v, want a handshake error", o.err)
			}
			if r.dialer.dials.Load() != 0 {
				t.Error("the application heard of it")
			}
		})
	}
}
