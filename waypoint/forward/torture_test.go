package forward_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// daemon runs a program in the foreground until the test ends, and waits until it
// listens.
func daemon(t *testing.T, addr, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
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

// nginx runs nginx with a server at an address of its own, which it returns.
func nginx(t *testing.T, server string) string {
	t.Helper()
	program := roottest.Program(t, "nginx", "nginx-light")
	dir, err := os.MkdirTemp("", "tulle-forward-") // its workers are another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	addr, config := nowhere(t), filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 100; }
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s; %[3]s }
}`, dir, addr, server)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon(t, addr, program, "-p", dir, "-c", config, "-e", "stderr")
	return addr
}

// haproxy runs HAProxy before back and returns where.
func haproxy(t *testing.T, back string) string {
	t.Helper()
	program, addr, config := roottest.Program(t, "haproxy", "haproxy"), nowhere(t), filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf("defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nlisten test\n  bind %s\n  server s %s\n", addr, back)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon(t, addr, program, "-db", "-f", config)
	return addr
}

// raw sends octets on a connection of its own and returns what comes until its end.
func raw(t *testing.T, url, in string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, in)
	_ = c.(*net.TCPConn).CloseWrite()
	out, _ := io.ReadAll(c)
	return string(out)
}

// spellings are ways to write a path that some application takes for /admin.
func spellings() []string {
	out := []string{"/admin", "/admin/", "/admin/x", "/ADMIN/../admin"}
	slash := []string{"/", "//", "/./", "/x/../", "/%2e/", "/x/%2e%2e/", "/x/..//", "%2f", "/%2f", `\`, "/%5c", "/x%2f..%2f", "/x/..%2f", "/x/.%2e/", "/..;/", "/x/..;a=b/", "/;/", "/%00/", "/\t/", "/.%00/", "/x/%252e%252e/", "/x/..\\"}
	name := []string{"admin", "%61dmin", "adm%69n", "%61%64%6d%69%6e", "admi%6E", "admin%2f", "admin%2e", "admin/..", "admin%20", "admin;x", "admin?", "admin%3f", "admin#", "admin%23", "admin/%2e", "admin//x", "admin\\x"}
	for _, s := range slash {
		for _, n := range name {
			out = append(out, s+n)
		}
	}
	return out
}

// TestNoSpellingGetsPastADenial has nginx for the application, which decodes, merges and
// resolves more than most, plainly and behind HAProxy.
func TestNoSpellingGetsPastADenial(t *testing.T) {
	app := nginx(t, `location = /admin { return 200 "ADMIN"; } location ^~ /admin/ { return 200 "ADMIN"; } location / { return 200 "other"; }`)
	for name, at := range map[string]string{"nginx": app, "HAProxy and nginx": haproxy(t, app)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.service("web", apiworkload.AppProtocol_HTTP11, at)
			w.policy(&api.Policy{Name: "admin", Action: api.Action_DENY, Rules: []*api.PolicyRule{{To: []*api.Operation{{Paths: []string{"/admin", "/admin/*"}}}}}})
			reached, passed := 0, 0
			for _, path := range spellings() {
				out := raw(t, w.url, "GET "+path+" HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
				if strings.Contains(out, "ADMIN") {
					t.Errorf("%q reaches it", path)
				}
				if strings.Contains(out, "\r\n\r\nother") || strings.Contains(out, "other") {
					passed++
				}
				if strings.HasPrefix(out, "HTTP/1.1 403") {
					reached++
				}
			}
			// Without the policy there would be something to stop, and not all is stopped.
			if reached < 50 || passed < 5 {
				t.Errorf("%d denied, %d passed", reached, passed)
			}
			w.policy(&api.Policy{Name: "admin", Action: api.Action_AUDIT})
			open := 0
			for _, path := range spellings() {
				if strings.Contains(raw(t, w.url, "GET "+path+" HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"), "ADMIN") {
					open++
				}
			}
			if open < 50 {
				t.Errorf("only %d spellings are one without the policy", open)
			}
		})
	}
}

// tortures are requests that parsers may read differently. What follows each is another
// request for some of them.
var tortures = []string{
	"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1e\r\nGET /smuggled HTTP/1.1\r\nX: y\r\n\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5, 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: +5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0x5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent-Length : 5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\nHost: web\nContent-Length: 5\n\nhelloGET /smuggled HTTP/1.1\nHost: web\n\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nContent_Length: 44\r\n\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n100000000000000005\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 44\r\n\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nHost: evil\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web, evil\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"GET http://evil/ HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET /a b HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET /\x7f HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET /\xff HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nX: a\x00b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nX\x00: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\n: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nX y: b\r\n\r\n",
	"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /next HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.9\r\nHost: web\r\n\r\n",
	"GET / HTTP/2.0\r\nHost: web\r\n\r\n",
	"GET /\r\nHost: web\r\n\r\n",
	"GET  / HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.1 \r\nHost: web\r\n\r\n",
	"\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nConnection: close, x-user\r\nX-User: a\r\n\r\nGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: web\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: web\r\n\r\n",
	"HEAD / HTTP/1.1\r\nHost: web\r\nContent-Length: 44\r\n\r\nGET /inside HTTP/1.1\r\nHost: web\r\nX: yyyyyyy\r\n\r\n",
}

// TestWhatArrivesIsWhatWasJudged sends requests through the whole waypoint, and nginx or
// HAProxy for a second parser behind it, to an application: it gets those requests that
// the waypoint decided on, as many and no others.
func TestWhatArrivesIsWhatWasJudged(t *testing.T) {
	for name, second := range map[string]func(*testing.T, string) string{
		"nginx": func(t *testing.T, back string) string {
			return nginx(t, "underscores_in_headers on; ignore_invalid_headers off; location / { proxy_pass http://"+back+"; proxy_http_version 1.1; proxy_set_header Host $http_host; }")
		},
		"HAProxy": haproxy,
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var arrived []string
			back := app(t, func(_ http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(io.Discard, r.Body)
				if err != nil {
					return // broken off, as the waypoint does when it finds a fault in the content
				}
				mu.Lock()
				defer mu.Unlock()
				arrived = append(arrived, fmt.Sprintf("%s %s %d", r.Method, r.RequestURI, n))
			})
			w := newWorld(t)
			w.service("web", apiworkload.AppProtocol_HTTP11, second(t, back))
			w.routes()
			whole := 0
			for _, in := range tortures {
				mu.Lock()
				arrived = nil
				mu.Unlock()
				w.mu.Lock()
				w.records = nil
				w.mu.Unlock()
				raw(t, w.url, in)
				w.mu.Lock()
				judged := make([]string, 0, len(w.records))
				for _, r := range w.records {
					judged = append(judged, line(r))
				}
				w.mu.Unlock()
				mu.Lock()
				got := slices.Clone(arrived)
				mu.Unlock()
				rest := slices.Clone(judged)
				for _, a := range got {
					i := slices.Index(rest, a)
					if i < 0 {
						t.Errorf("%q: %q arrives, and %q was judged", in, got, judged)
						break
					}
					rest = slices.Delete(rest, i, i+1)
				}
				if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "/smuggled") }) {
					t.Errorf("%q: %q", in, got)
				}
				if len(got) > 0 && len(rest) == 0 {
					whole++
				}
			}
			if whole < 8 {
				t.Errorf("only %d arrived whole", whole)
			}
		})
	}
}

func line(r forward.Record) string {
	target := r.Path
	if r.HasQuery {
		target += "?" + r.Query
	}
	return fmt.Sprintf("%s %s %d", r.Method, target, r.Received)
}
