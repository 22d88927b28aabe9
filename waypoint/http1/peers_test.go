package http1_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// listen serves h on the loopback until the test ends.
func listen(t testing.TB, h message.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http1.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = server.Serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// freePort returns a port of the loopback that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	// An address of our own among the loopback's keeps others from taking the port before
	// the program that is given it.
	pid := os.Getpid()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs a daemon in the foreground until the test ends, and waits until addr
// answers.
func run(t testing.TB, addr, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(bound):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for deadline := time.Now().Add(bound); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended: %s", program, log.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %s", program, log.String())
		}
	}
}

// write writes a file of a test.
func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// nginx runs nginx with what stands in its http block.
func nginx(t testing.TB, addr, http string) {
	t.Helper()
	program := roottest.Program(t, "nginx")
	// Its workers run as another user, who must be able to enter.
	dir, err := os.MkdirTemp("", "tulle-http1-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`
daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 100; }
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  %[2]s
}`, dir, http))
	run(t, addr, program, "-p", dir, "-c", config, "-e", "stderr")
}

// haproxy runs HAProxy from front to back.
func haproxy(t testing.TB, front, back string) {
	t.Helper()
	program := roottest.Program(t, "haproxy")
	config := write(t, filepath.Join(t.TempDir(), "haproxy.cfg"), fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen test
  bind %s
  server s %s
`, front, back))
	run(t, front, program, "-db", "-f", config)
}

// short is what of a request all proxies must agree on.
func short(x message.Exchange) string {
	r := x.Request()
	content, err := io.ReadAll(readerOf(x.Body()))
	return fmt.Sprintf("%s %s %q %v", r.Method, r.Target(), content, err)
}

// forwardTo passes requests on to addr, each on a connection of its own.
func forwardTo(t testing.TB, addr string, seen func(string)) message.Handler {
	return func(ctx context.Context, x message.Exchange) {
		r := x.Request()
		content, err := io.ReadAll(readerOf(x.Body()))
		seen(fmt.Sprintf("%s %s %q %v", r.Method, r.Target(), content, err))
		if err != nil {
			_ = respond(x, 400, "")
			return
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		client, _ := http1.NewClient(conn, http1.ClientConfig{})
		defer client.Close()
		up, err := client.Open(ctx, r, len(content) == 0 && r.Length >= 0)
		if err != nil {
			t.Errorf("%s: %v", r.Target(), err)
			_ = respond(x, 500, "")
			return
		}
		defer up.Close()
		if len(content) > 0 || r.Length < 0 {
			_, _ = up.Write(content)
			_ = up.CloseWrite(x.Body().Trailer())
		}
		response, err := up.Response(ctx)
		if err != nil {
			t.Errorf("%s: %v", r.Target(), err)
			_ = respond(x, 502, "")
			return
		}
		_ = respond(x, response.Status, "")
	}
}

// TestOtherProxiesReadWhatWeSendAsWeDo sends the corpus of all requests through a
// proxy made of both codecs, and on through nginx and HAProxy. What these forward must
// be what we judged, one by one, or nothing.
func TestOtherProxiesReadWhatWeSendAsWeDo(t *testing.T) {
	type parser struct {
		name  string
		start func(t *testing.T, front, back string)
	}
	for _, p := range []parser{
		{"nginx", func(t *testing.T, front, back string) {
			nginx(t, front, fmt.Sprintf(`underscores_in_headers on; ignore_invalid_headers off;
  server { listen %s; location / { proxy_pass http://%s; proxy_http_version 1.1; proxy_set_header Host $http_host; } }`, front, back))
		}},
		{"HAProxy", func(t *testing.T, front, back string) { haproxy(t, front, back) }},
	} {
		t.Run(p.name, func(t *testing.T) {
			var mu sync.Mutex
			var judged, arrived []string
			back := listen(t, func(_ context.Context, x message.Exchange) {
				s := short(x)
				mu.Lock()
				arrived = append(arrived, s)
				mu.Unlock()
				_ = respond(x, 200, "ok")
			})
			front := freePort(t)
			p.start(t, front, back)
			server := &http1.Server{Handler: forwardTo(t, front, func(s string) {
				mu.Lock()
				judged = append(judged, s)
				mu.Unlock()
			})}
			passed := 0
			check := func(name, in string) {
				mu.Lock()
				judged, arrived = nil, nil
				mu.Unlock()
				_, _ = exchangeRaw(t, server, in)
				mu.Lock()
				defer mu.Unlock()
				rest := judged
				for _, got := range arrived {
					for len(rest) > 0 && rest[0] != got {
						rest = rest[1:]
					}
					if len(rest) == 0 {
						t.Errorf("%s: %s forwards %q of %q", name, p.name, arrived, judged)
						return
					}
					rest = rest[1:]
					passed++
				}
			}
			for _, c := range goodRequests {
				if !strings.Contains(c.in, "CONNECT") && !strings.Contains(c.want, "protocol=") {
					check(c.name, c.in)
				}
			}
			for _, c := range badRequests {
				check(c.name, c.in)
			}
			for _, c := range badContents {
				check(c.name, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+c.in+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			if passed < len(goodRequests)/2 {
				t.Errorf("only %d requests passed", passed)
			}
		})
	}
}

func TestCurl(t *testing.T) {
	curl := roottest.Program(t, "curl")
	var mu sync.Mutex
	connections := map[string]bool{}
	addr := listen(t, func(_ context.Context, x message.Exchange) {
		content, err := io.ReadAll(readerOf(x.Body()))
		r := x.Request()
		text := fmt.Sprintf("%s %s %d %v", r.Method, r.Target(), len(content), err)
		mu.Lock()
		connections[r.Header.Get("user-agent")] = true
		mu.Unlock()
		if r.Path != "/chunked" {
			_ = respond(x, 200, text)
			return
		}
		_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
		for _, word := range strings.SplitAfter(text, " ") {
			_, _ = io.WriteString(writerOf(x), word)
			_ = x.Flush()
		}
		_ = x.Close(field("x-t", "1"))
	})
	large := write(t, filepath.Join(t.TempDir(), "large"), strings.Repeat("x", 3<<20))
	url := "http://" + addr
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{url + "/a?b"}, "GET /a?b 0 <nil>"},
		{[]string{"-0", url + "/a"}, "GET /a 0 <nil>"},
		{[]string{"--path-as-is", url + "/a/../%62"}, "GET /b 0 <nil>"},
		{[]string{"-d", "abc", url + "/"}, "POST / 3 <nil>"},
		{[]string{"--data-binary", "@" + large, "-H", "Expect: 100-continue", url + "/"}, "POST / 3145728 <nil>"},
		{[]string{"-T", large, "-H", "Transfer-Encoding: chunked", url + "/"}, "PUT /large 3145728 <nil>"},
		{[]string{"-I", url + "/"}, "content-length: 14"},
		{[]string{url + "/chunked"}, "GET /chunked 0 <nil>"},
		{[]string{url + "/1", url + "/2", "-w", "%{num_connects}"}, "GET /1 0 <nil>1GET /2 0 <nil>0"},
		{[]string{"-x", url, "http://other.example/proxied"}, "GET /proxied 0 <nil>"},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "--max-time", "20"}, c.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("curl %q: %v\n%s\nwant %s", c.args, err, out, c.want)
		}
	}
}

// TestCurlSeesTheAnswerToWhatItStillSends sends much to who wants none of it.
func TestCurlSeesTheAnswerToWhatItStillSends(t *testing.T) {
	curl := roottest.Program(t, "curl")
	addr := listen(t, func(_ context.Context, x message.Exchange) { _ = respond(x, 301, "") })
	large := write(t, filepath.Join(t.TempDir(), "large"), strings.Repeat("x", 50<<20))
	for range 3 {
		out, err := exec.Command(curl, "-sS", "--max-time", "20", "-H", "Expect:", "-T", large, "-w", "%{response_code}", "http://"+addr+"/").CombinedOutput()
		if err != nil || string(out) != "301" {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestClientOfNginx(t *testing.T) {
	addr := freePort(t)
	back := listen(t, func(_ context.Context, x message.Exchange) {
		_ = x.Respond(&message.Response{Status: 200, Length: -1}, false)
		for range 3 {
			_, _ = x.Write([]byte("part "))
			_ = x.Flush()
		}
		_ = x.Close(nil)
	})
	nginx(t, addr, fmt.Sprintf(`keepalive_requests 6;
  server { listen %s;
    location = /empty { return 204; }
    location = /text { return 200 "text"; }
    location = /moved { return 301 /text; }
    location = /chunked { proxy_pass http://%s; proxy_http_version 1.1; proxy_buffering off; }
  }`, addr, back))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	client, _ := http1.NewClient(conn, http1.ClientConfig{})
	defer client.Close()
	for i, c := range []struct{ method, path, want string }{
		{"GET", "/text", `length=4 content="text"`},
		{"HEAD", "/text", `length=4 content=""`},
		{"GET", "/empty", `length=0 content=""`},
		{"GET", "/moved", `location=`},
		{"GET", "/chunked", `length=-1 content="part part part "`},
		{"GET", "/text", `content="text"`},
	} {
		if !client.Usable() {
			t.Fatalf("not usable for request %d", i)
		}
		r := get(c.path)
		r.Method = c.method
		x, err := client.Open(t.Context(), r, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t.Context(), x); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s", c.method, c.path, got)
		}
		_ = x.Close()
	}
	if client.Usable() {
		t.Error("nginx said that it closes")
	}
}
