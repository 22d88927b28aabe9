package mtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// TestOpensslAsClient lets a TLS stack that is not Go's talk to the server.
func TestOpensslAsClient(t *testing.T) {
	program := roottest.Program(t, "openssl")
	ca := forge.Root(t, "cluster.local").Intermediate(t)
	server := mtls.Server(ca.Leaf(t, api), ca.Bundle())
	dir := t.TempDir()
	write := func(name string, blocks ...*pem.Block) string {
		var b bytes.Buffer
		for _, block := range blocks {
			must(t, pem.Encode(&b, block))
		}
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, b.Bytes(), 0o600))
		return path
	}
	certificate := func(c *x509.Certificate) *pem.Block { return &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw} }
	files := func(svid *x509svid.SVID) []string {
		key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
		must(t, err)
		return []string{
			"-cert", write("cert.pem", certificate(svid.Certificates[0])), "-cert_chain", write("chain.pem", certificate(ca.Cert)),
			"-key", write("key.pem", &pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		}
	}
	root := write("root.pem", certificate(ca.Root))

	for _, tt := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"with an SVID", append(files(ca.Leaf(t, web)), "-alpn", "h2"), true},
		{"with a server name, which does not matter", append(files(ca.Leaf(t, web)), "-alpn", "h2", "-servername", "api.shop"), true},
		{"with X25519 only", append(files(ca.Leaf(t, web)), "-alpn", "h2", "-groups", "X25519"), true},
		{"without a certificate", []string{"-alpn", "h2"}, false},
		{"without ALPN", files(ca.Leaf(t, web)), false},
		{"with TLS 1.2", append(files(ca.Leaf(t, web)), "-alpn", "h2", "-tls1_2"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer listener.Close()
			handshook := make(chan error, 1)
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					handshook <- err
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				secure := tls.Server(conn, server)
				if err = secure.Handshake(); err == nil {
					_, err = secure.Write([]byte("hello from the server\n"))
				}
				handshook <- err
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			args := append([]string{"s_client", "-connect", listener.Addr().String(), "-noservername", "-CAfile", root, "-verify_return_error", "-ign_eof"}, tt.args...)
			if strings.Contains(strings.Join(tt.args, " "), "-servername") {
				args = append(args[:3], args[4:]...)
			}
			out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
			err = <-handshook
			if (err == nil) != tt.ok {
				t.Fatalf("server says %v\n%s", err, out)
			}
			if !tt.ok {
				return
			}
			text := string(out)
			if !strings.Contains(text, "hello from the server") || !strings.Contains(text, "TLSv1.3") {
				t.Errorf("openssl says\n%s", text)
			}
			if strings.Contains(text, "New Session Ticket arrived") {
				t.Errorf("a session ticket was sent\n%s", text)
			}
		})
	}
}
