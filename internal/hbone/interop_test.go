package hbone_test

import (
	"bufio"
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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// interopSize is more than any first window and no multiple of a frame.
const interopSize = 5<<20 + 7

// echoBack accepts with the request's baggage and sends everything back.
func echoBack(_ context.Context, r *hbone.ServerRequest) {
	s, err := r.Accept(hbone.Response{Status: 200, Baggage: r.Baggage})
	if err != nil {
		return
	}
	defer s.Close()
	if _, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}); err == nil {
		_ = s.CloseWrite()
	}
}

// dialClient connects a client to addr over a plain connection.
func dialClient(t *testing.T, addr string) *hbone.ClientConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	client, err := hbone.NewClient(c, hbone.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// testEchoThrough sends interopSize octets through the client's peer and back.
func testEchoThrough(t *testing.T, client *hbone.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, response, err := client.Open(ctx, hbone.Request{Authority: "10.0.0.7:8080", Baggage: "service.name=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if response.Baggage != "service.name=web" {
		t.Errorf("baggage came back as %q", response.Baggage)
	}
	sent := bytes.Repeat([]byte("0123456789abc"), interopSize/13+1)[:interopSize]
	go func() {
		_, _ = s.Write(sent)
		_ = s.CloseWrite()
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d octets came back, %v", len(got), err)
	}
}

func TestNetHTTP2ClientAgainstOurServer(t *testing.T) {
	addr := listen(t, &hbone.Server{Handler: echoBack}, plain)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http2.Transport{AllowHTTP: true}
	client, err := transport.NewClientConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	body, write := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://10.0.0.7:8080", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("baggage", "service.name=go")
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 || resp.Header.Get("baggage") != "service.name=go" {
		t.Errorf("response %d %v", resp.StatusCode, resp.Header)
	}
	sent := bytes.Repeat([]byte{'x'}, interopSize)
	go func() { _, _ = write.Write(sent); _ = write.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d octets came back, %v", len(got), err)
	}

	// A GET reaches the handler, which can refuse it.
	get, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.0.0.7:8080/", nil)
	if resp, err := client.RoundTrip(get); err != nil || resp.StatusCode != 200 {
		t.Errorf("GET: %v, %v", resp, err)
	}
}

func TestOurClientAgainstNetHTTP2Server(t *testing.T) {
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
		(&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host == "10.0.0.7:1" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("baggage", r.Header.Get("baggage"))
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(buf[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		})})
	})
	client := dialClient(t, l.Addr().String())
	testEchoThrough(t, client)
	var se *hbone.StatusError
	if _, _, err := client.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:1"}); !errors.As(err, &se) || se.Status != 503 {
		t.Errorf("Open: %v, want status 503", err)
	}
}

// TestThroughNghttpx has nghttpx between our client and our server, as an HTTP/2
// proxy that forwards CONNECT: it is a foreign peer to both.
func TestThroughNghttpx(t *testing.T) {
	nghttpx := roottest.Program(t, "nghttpx", "nghttp2-proxy")
	backend := listen(t, &hbone.Server{Handler: echoBack}, plain)
	front := freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, nghttpx, "--conf=/dev/null", "--http2-proxy", "--workers=1", "--errorlog-file=/dev/null",
		fmt.Sprintf("--frontend=%v,%d;no-tls", front.Addr(), front.Port()),
		fmt.Sprintf("--backend=127.0.0.1,%d;;proto=h2", backend.Port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	waitListening(t, front.String())
	client := dialClient(t, front.String())
	for range 2 {
		s, _, err := client.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:8080"})
		if err != nil {
			t.Fatal(err)
		}
		// nghttpx carries no half-close of a CONNECT to its backend: expect the octets only.
		sent := bytes.Repeat([]byte("0123456789abc"), interopSize/13+1)[:interopSize]
		go func() { _, _ = s.Write(sent) }()
		stop := time.AfterFunc(time.Minute, func() { _ = s.Close() })
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("what came back differs, %v", err)
		}
		stop.Stop()
		_ = s.Close()
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

// python returns the system's interpreter, which has Debian's python3-h2.
func python(t *testing.T) string {
	t.Helper()
	roottest.Program(t, "/usr/bin/python3", "python3-h2")
	if err := exec.Command("/usr/bin/python3", "-c", "import h2").Run(); err != nil {
		roottest.Skip(t, "needs the Python module h2; install the Debian package python3-h2")
	}
	return "/usr/bin/python3"
}

func TestPythonClientAgainstOurServer(t *testing.T) {
	python := python(t)
	addr := listen(t, &hbone.Server{Handler: echoBack}, plain)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "testdata/h2client.py", addr.IP.String(),
		strconv.Itoa(addr.Port), strconv.Itoa(1<<20+3)).CombinedOutput()
	if err != nil || string(out) != "service.name=py\nok\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestOurClientAgainstPythonServer(t *testing.T) {
	python := python(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, python, "testdata/h2server.py")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	client := dialClient(t, "127.0.0.1:"+strings.TrimSpace(port))
	testEchoThrough(t, client)
	var se *hbone.StatusError
	if _, _, err := client.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:1"}); !errors.As(err, &se) || se.Status != 503 {
		t.Errorf("Open: %v, want status 503", err)
	}
	if _, _, err := client.Open(t.Context(), hbone.Request{Authority: "10.0.0.7:2"}); !errors.Is(err, hbone.ErrTooManyStreams) {
		t.Errorf("Open: %v, want ErrTooManyStreams for REFUSED_STREAM", err)
	}
	testEchoThrough(t, client)
}
