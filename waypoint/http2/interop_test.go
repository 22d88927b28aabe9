package http2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// interopSize is more than any first window and no multiple of a frame.
const interopSize = 3<<20 + 7

func TestCurlAgainstOurServer(t *testing.T) {
	curl := roottest.Program(t, "curl")
	addr := listen(t, handled(echo))
	sent := bytes.Repeat([]byte("0123456789abc"), interopSize/13+1)[:interopSize]
	cmd := exec.Command(curl, "-sS", "--http2-prior-knowledge", "--data-binary", "@-", "-w", "%{http_version} %{response_code}",
		"http://"+addr.String()+"/")
	cmd.Stdin = bytes.NewReader(sent)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(out, sent)
	if !ok || string(rest) != "2 200" {
		t.Errorf("%d octets came back, then %.100q", len(out), rest)
	}
}

func TestH2loadAgainstOurServer(t *testing.T) {
	h2load := roottest.Program(t, "h2load", "nghttp2-client")
	addr := listen(t, handled(echo))
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, make([]byte, 20<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(h2load, "-n", "3000", "-c", "4", "-m", "50", "-d", data, "http://"+addr.String()+"/").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "3000 succeeded, 0 failed, 0 errored, 0 timeout") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNghttpAgainstOurServer(t *testing.T) {
	nghttp := roottest.Program(t, "nghttp", "nghttp2-client")
	addr := listen(t, handled(func(_ context.Context, x message.Exchange) {
		_ = x.Inform(&message.Response{Status: 103, Header: message.Header{{Name: "link", Value: "</a>"}}})
		content, err := io.ReadAll(x.Body()) // sends 100
		if err != nil {
			return
		}
		_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
		_, _ = x.Write(content)
		_ = x.Close(x.Body().Trailer())
	}))
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte("hello nghttp"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(nghttp, "-v", "-d", file, "--expect-continue", "--trailer=x-end: yes", "http://"+addr.String()+"/").CombinedOutput()
	for _, want := range []string{":status: 103", ":status: 100", ":status: 200", "hello nghttp", "x-end: yes"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("nghttp did not see %q", want)
		}
	}
	if err != nil || t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestGosClientAgainstOurServer(t *testing.T) {
	addr := listen(t, handled(echo))
	transport := &xhttp2.Transport{AllowHTTP: true}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	sent := bytes.Repeat([]byte("0123456789abc"), interopSize/13+1)[:interopSize]
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr.String()+"/", bytes.NewReader(sent))
	r.Trailer = http.Header{"X-End": {"yes"}}
	p, err := client.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Body.Close() }()
	got, err := io.ReadAll(p.Body)
	if err != nil || !bytes.Equal(got, sent) || p.Trailer.Get("X-End") != "yes" {
		t.Errorf("%d octets came back, %v, trailers %v", len(got), err, p.Trailer)
	}
}

// dialClient connects a client of ours to addr.
func dialClient(t *testing.T, addr string) *http2.ClientConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	client, err := http2.NewClient(c, http2.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestOurClientAgainstGosServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		(&xhttp2.Server{}).ServeConn(c, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/early" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Trailer", "X-End")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("X-End", r.Trailer.Get("X-End"))
		})})
	})
	client := dialClient(t, l.Addr().String())
	sent := strings.Repeat("0123456789abc", interopSize/13+1)[:interopSize]
	x, err := client.Open(t.Context(), post("/"), false)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(x, sent)
		wrote <- errors.Join(err, x.CloseWrite(message.Header{{Name: "x-end", Value: "yes"}}))
	}()
	if _, err := x.Response(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(x.Body())
	if err != nil || string(got) != sent {
		t.Errorf("%d octets came back, %v", len(got), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	_ = x.Close()
	for range 10 {
		if p, _, _ := fetch(t, client, get("/early"), ""); p.Status != 403 {
			t.Errorf("status %d", p.Status)
		}
	}
}

func TestOurClientAgainstNginx(t *testing.T) {
	nginx := roottest.Program(t, "nginx", "nginx-light")
	dir := t.TempDir()
	front := freePort(t)
	content := strings.Repeat("0123456789abc", interopSize/13+1)[:interopSize]
	for name, text := range map[string]string{"large": content, "small": "small", "nginx.conf": fmt.Sprintf(`
daemon off; pid %[1]s/pid; error_log stderr; master_process off;
events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f;
  uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]v http2; root %[1]s; location /refuse { return 429; } }
}`, dir, front)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, nginx, "-c", filepath.Join(dir, "nginx.conf"), "-p", dir, "-e", "stderr")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	waitListening(t, front.String())
	client := dialClient(t, front.String())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for path, want := range map[string]string{"/large": content, "/small": "small"} {
				p, got, _ := fetch(t, client, get(path), "")
				if p.Status != 200 || got != want || p.Length != int64(len(want)) {
					t.Errorf("%s: status %d, %d octets of %d", path, p.Status, len(got), p.Length)
				}
			}
			if p, _, _ := fetch(t, client, get("/refuse"), ""); p.Status != 429 {
				t.Errorf("status %d", p.Status)
			}
		})
	}
	wg.Wait()
}

// TestThroughNghttpx has nghttpx between our client and our server: it is a foreign
// peer to both.
func TestThroughNghttpx(t *testing.T) {
	nghttpx := roottest.Program(t, "nghttpx", "nghttp2-proxy")
	backend := listen(t, handled(echo))
	front := freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, nghttpx, "--conf=/dev/null", "--workers=1", "--errorlog-file=/dev/null",
		fmt.Sprintf("--frontend=%v,%d;no-tls", front.Addr(), front.Port()),
		fmt.Sprintf("--backend=127.0.0.1,%d;;proto=h2", backend.Port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	waitListening(t, front.String())
	client := dialClient(t, front.String())
	sent := strings.Repeat("0123456789abc", interopSize/13+1)[:interopSize]
	for range 3 {
		x, err := client.Open(t.Context(), post("/"), false)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(x, sent)
			_ = x.CloseWrite(nil)
		}()
		if _, err := x.Response(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(x.Body()); err != nil || string(got) != sent {
			t.Errorf("%d octets came back, %v", len(got), err)
		}
		_ = x.Close()
	}
}

// freePort returns a place to listen at. It is of a loopback address that tests of
// other packages, which run at the same time, do not take ports of.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	pid := os.Getpid()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// waitListening waits until a program that was just started accepts connections.
func waitListening(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens at %s: %v", addr, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
