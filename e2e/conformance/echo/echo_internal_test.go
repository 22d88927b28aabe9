package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	suite "sigs.k8s.io/gateway-api/conformance/utils/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ports are where a test's server listens.
type ports struct{ http, https, grpc, tcp string }

// begin starts a server of all protocols and ends it with the test.
func begin(t *testing.T) ports {
	t.Helper()
	certificate, key := identity(t)
	// Two free ports of HTTP have to differ for --tls to name one of them.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	https := free.Addr().(*net.TCPAddr).Port
	free.Close()
	s, err := listen(serverConfig{
		ports: []int{0, https}, tls: []int{https}, grpc: []int{0}, tcp: []int{0},
		certificate: certificate, key: key, address: "127.0.0.1", hostname: "echo-v1-5d8f-x7k2",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ports{
		http: s.httpListeners[0].Addr().String(), https: s.httpListeners[1].Addr().String(),
		grpc: s.gl[0].Addr().String(), tcp: s.tl[0].Addr().String(),
	}
}

func identity(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"echo"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("crt", "CERTIFICATE", der), write("key", "PRIVATE KEY", pkcs8)
}

// client runs the client as the suite does and reads what it prints as the suite does.
func client(t *testing.T, args ...string) []suite.Response {
	t.Helper()
	var stdout, stderr strings.Builder
	if err := runClient(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("client %v: %v\n%s", args, err, &stderr)
	}
	var all []suite.Response
	for section := range strings.SplitSeq(stdout.String(), "\n\n") {
		if section = strings.TrimSpace(section); section != "" {
			all = append(all, suite.ParseResponse(section))
		}
	}
	return all
}

func TestTheSuiteReadsWhatTheClientPrints(t *testing.T) {
	at := begin(t)
	for _, tt := range []struct {
		name  string
		args  []string
		proto string
	}{
		{"HTTP/1.1", []string{"http://" + at.http + "/path?q=1"}, "HTTP/1.1"},
		{"HTTP/2 by prior knowledge", []string{"http://" + at.http + "/path?q=1", "--http2"}, "HTTP/2.0"},
		{"HTTPS", []string{"https://" + at.https + "/path?q=1"}, "HTTP/1.1"},
		{"HTTP/2 within TLS", []string{"https://" + at.https + "/path?q=1", "--http2"}, "HTTP/2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := client(t, append(tt.args, "--method=PUT", "-H", "X-Version:one", "-H", "X-Version:two: three", "-H", "Host:elsewhere")...)
			if len(got) != 1 {
				t.Fatalf("%d responses", len(got))
			}
			r := got[0]
			if r.Code != "200" || r.Hostname != "echo-v1-5d8f-x7k2" || r.Host != "elsewhere" || r.URL != "/path?q=1" || r.Method != "PUT" || r.Protocol != tt.proto || r.IP != "127.0.0.1" {
				t.Errorf("%+v", r)
			}
			if got := strings.Join(r.RequestHeaders["X-Version"], "|"); got != "one|two: three" {
				t.Errorf("x-version is %q", got)
			}
			if got := r.ResponseHeaders.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
				t.Errorf("content-type is %q", got)
			}
		})
	}
	t.Run("gRPC", func(t *testing.T) {
		got := client(t, "grpc://"+at.grpc, "-H", "version:two", "--msg", "hello")
		if len(got) != 1 || got[0].Code != "200" || got[0].Hostname != "echo-v1-5d8f-x7k2" || strings.Join(got[0].RequestHeaders["Version"], "") != "two" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("TCP", func(t *testing.T) {
		got := client(t, "tcp://"+at.tcp, "--msg", "hello")
		if len(got) != 1 || got[0].Code != "200" || got[0].Hostname != "echo-v1-5d8f-x7k2" || !strings.Contains(got[0].RawContent, "[0 body] Echo=hello") {
			t.Errorf("%+v", got)
		}
	})
}

func TestABatchHasAsManyResponsesAsWereAsked(t *testing.T) {
	at := begin(t)
	for _, target := range []string{"http://" + at.http + "/", "grpc://" + at.grpc} {
		got := client(t, target, "--count=500")
		if len(got) != 500 {
			t.Errorf("%s: %d responses", target, len(got))
		}
		for i, r := range got {
			if r.Code != "200" || r.Hostname != "echo-v1-5d8f-x7k2" {
				t.Fatalf("%s, response %d: %+v", target, i, r)
			}
		}
	}
}

func TestAClientWithoutAResponseFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, args := range [][]string{
		{"http://" + nobody + "/"},
		{"grpc://" + nobody},
		{"tcp://" + nobody},
		{"udp://" + nobody},
		{"http://" + nobody + "/", "--count=0"},
		{"http://" + nobody + "/", "-H", "nothing"},
		{"/path"},
		{},
	} {
		var stdout, stderr strings.Builder
		if err := runClient(t.Context(), args, &stdout, &stderr); err == nil {
			t.Errorf("client %v printed %q", args, &stdout)
		}
	}
}

func TestAFieldIsOneLine(t *testing.T) {
	var f fields
	f.add("Host", "a\nStatusCode=200\rx")
	if got, want := f.String(), "Host=a StatusCode=200 x\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestTLSNeedsAPortAndACertificate(t *testing.T) {
	for _, c := range []serverConfig{
		{address: "127.0.0.1", ports: []int{0}, tls: []int{8443}},
		{address: "127.0.0.1", ports: []int{0}, tls: []int{0}, certificate: "/none", key: "/none"},
	} {
		if s, err := listen(c); err == nil {
			s.close()
			t.Error(fmt.Sprintf("%+v", c), "listens")
		}
	}
}
