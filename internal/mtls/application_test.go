package mtls_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// authority signs certificates of applications, which are no SVIDs.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template, template)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(a.t, err)
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	return cert, key
}

// leaf writes a certificate and its key, and returns their files.
func (a *authority) leaf(file string, notAfter time.Time, names ...string) (cert, key string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if u, err := url.Parse(n); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	c, k := a.sign(template, a.cert)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	must(a.t, err)
	return a.write(file+".crt", "CERTIFICATE", c.Raw), a.write(file+".key", "PRIVATE KEY", der)
}

func (a *authority) write(file, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, file)
	must(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// openssl runs a server of TLS and returns where, when it listens.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	program := roottest.Program(t, "openssl")
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+os.Getpid()>>16&0x7f, os.Getpid()>>8&0xff, os.Getpid()&0xff))
	must(t, err)
	addr := ln.Addr().String()
	must(t, ln.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, append([]string{"s_server", "-accept", addr, "-quiet", "-www"}, args...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("openssl does not listen: %s", log.String())
		}
	}
}

// visit does a handshake and asks for the server's page, which shows that it took the
// client's certificate, too.
func visit(addr string, a mtls.Application) (tls.ConnectionState, error) {
	cfg, err := mtls.ApplicationClient(a)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, err
	}
	page, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(page), "HTTP/1.0 200") {
		err = errors.New("no page")
	}
	return conn.ConnectionState(), err
}

// TestOpensslAsApplication lets the client talk to a TLS stack that is not Go's.
func TestOpensslAsApplication(t *testing.T) {
	ca, other := newAuthority(t, "apps"), newAuthority(t, "others")
	cert, key := ca.leaf("app", time.Now().Add(time.Hour), "app.shop", "*.wide.shop", "spiffe://apps/app")
	clientCert, clientKey := ca.leaf("client", time.Now().Add(time.Hour), "proxy.shop")
	root := ca.write("root.pem", "CERTIFICATE", ca.cert.Raw)
	text, err := os.ReadFile(root)
	must(t, err)
	roots, err := mtls.RootsFromPEM(text)
	must(t, err)
	foreign := mtls.RootsFromFile(other.write("root.pem", "CERTIFICATE", other.cert.Raw))

	open := openssl(t, "-cert", cert, "-key", key, "-alpn", "http/1.1,h2")
	strict := openssl(t, "-cert", cert, "-key", key, "-Verify", "3", "-verify_return_error", "-CAfile", root)
	old := openssl(t, "-cert", cert, "-key", key, "-tls1_2")
	expired, expiredKey := ca.leaf("expired", time.Now().Add(-time.Hour), "app.shop")
	late := openssl(t, "-cert", expired, "-key", expiredKey)

	for _, test := range []struct {
		name, addr string
		a          mtls.Application
		ok         bool
	}{
		{"by its name", open, mtls.Application{ServerName: "app.shop", Roots: roots}, true},
		{"by a wildcard", open, mtls.Application{ServerName: "x.wide.shop", Roots: roots}, true},
		{"by another name", open, mtls.Application{ServerName: "app.shop", SubjectNames: []string{"other.shop"}, Roots: roots}, false},
		{"by one of several", open, mtls.Application{ServerName: "sni.shop", SubjectNames: []string{"other.shop", "app.shop"}, Roots: roots}, true},
		{"by its URI", open, mtls.Application{ServerName: "sni.shop", SubjectNames: []string{"spiffe://apps/app"}, Roots: roots}, true},
		{"by no name of its", open, mtls.Application{ServerName: "x.y.wide.shop", Roots: roots}, false},
		{"by other roots", open, mtls.Application{ServerName: "app.shop", Roots: foreign}, false},
		{"by the system's roots", open, mtls.Application{ServerName: "app.shop"}, false},
		{"whoever it is", open, mtls.Application{Insecure: true}, true},
		{"TLS 1.2", old, mtls.Application{ServerName: "app.shop", Roots: roots}, true},
		{"expired", late, mtls.Application{ServerName: "app.shop", Roots: roots}, false},
		{"with a certificate", strict, mtls.Application{ServerName: "app.shop", Roots: roots, Certificate: clientCert, Key: clientKey}, true},
		{"without a certificate", strict, mtls.Application{ServerName: "app.shop", Roots: roots}, false},
		{"with a file that is not there", strict, mtls.Application{ServerName: "app.shop", Roots: roots, Certificate: root + "x", Key: clientKey}, false},
	} {
		state, err := visit(test.addr, test.a)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.ok && test.addr == open && state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%s: ALPN %q", test.name, state.NegotiatedProtocol)
		}
	}

	// A certificate that is replaced under a running proxy counts from the next
	// connection on.
	a := mtls.Application{ServerName: "app.shop", Roots: roots, Certificate: clientCert, Key: clientKey}
	stranger, strangerKey := other.leaf("client", time.Now().Add(time.Hour), "proxy.shop")
	must(t, os.Rename(stranger, clientCert))
	must(t, os.Rename(strangerKey, clientKey))
	if _, err := visit(strict, a); err == nil {
		t.Error("the replaced certificate is not read")
	}
}

func TestApplicationsOfTheMesh(t *testing.T) {
	ca := forge.Root(t, "cluster.local").Intermediate(t)
	foreign := forge.Root(t, "elsewhere.example").Intermediate(t)
	serve := func(src x509svid.Source) string {
		cfg := mtls.Server(src, ca.Bundle(), mtls.WithProtocol("http/1.1"))
		ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
		must(t, err)
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 100))
				_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n")
				_ = conn.Close()
			}
		}()
		return ln.Addr().String()
	}
	addr := serve(ca.Leaf(t, api))
	own := ca.Leaf(t, web)
	for name, test := range map[string]struct {
		a  mtls.Application
		ok bool
	}{
		"of the trust domain": {mtls.Application{SVID: own, Bundles: ca.Bundle()}, true},
		"by its identity":     {mtls.Application{SVID: own, Bundles: ca.Bundle(), SubjectNames: []string{api}}, true},
		"another identity":    {mtls.Application{SVID: own, Bundles: ca.Bundle(), SubjectNames: []string{web}}, false},
		"a foreign bundle":    {mtls.Application{SVID: own, Bundles: foreign.Bundle()}, false},
		"without an identity": {mtls.Application{Insecure: true}, false},
	} {
		if _, err := visit(addr, test.a); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestApplicationsThatCannotBe(t *testing.T) {
	for name, a := range map[string]mtls.Application{
		"nothing to check against":  {},
		"certificate without a key": {ServerName: "a", Certificate: "a"},
		"key without a certificate": {ServerName: "a", Key: "a"},
	} {
		if _, err := mtls.ApplicationClient(a); err == nil {
			t.Errorf("%s: is taken", name)
		}
	}
}

func TestFilesOfACertificateAreRegularAndShort(t *testing.T) {
	a := newAuthority(t, "own")
	cert, key := a.leaf("client", time.Now().Add(time.Hour), "client")
	pipe, long := filepath.Join(t.TempDir(), "pipe"), filepath.Join(t.TempDir(), "long")
	must(t, syscall.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(long, bytes.Repeat([]byte("\n"), 1<<20+1), 0o600))
	for _, files := range [][2]string{{"/dev/zero", key}, {cert, "/dev/zero"}, {pipe, key}, {cert, pipe}, {long, key}, {cert, t.TempDir()}} {
		cfg, err := mtls.ApplicationClient(mtls.Application{ServerName: "a", Certificate: files[0], Key: files[1]})
		must(t, err)
		if _, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{}); err == nil {
			t.Errorf("%v: are taken", files)
		}
	}
	if _, err := mtls.RootsFromFile(pipe)(); err == nil {
		t.Error("roots are read from a pipe")
	}
	cfg, err := mtls.ApplicationClient(mtls.Application{ServerName: "a", Certificate: cert, Key: key})
	must(t, err)
	if _, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{}); err != nil {
		t.Errorf("a certificate and its key: %v", err)
	}
}
