package forward_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/waypoint/forward"
)

// A client's own deadline can only shorten the rule's, however it is written.
func TestTheDeadlinesOfCallsLiftNoTimeout(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) })
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: &api.Timeouts{Request: durationpb.New(50 * time.Millisecond)}}))
	for _, v := range []string{"0S", "0n", "99999999H", "2562048H", "1H", "1n"} {
		q, _ := http.NewRequestWithContext(t.Context(), "GET", w.url, nil)
		q.Header.Set("grpc-timeout", v)
		r, err := httpClient(t, false).Do(q)
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		r.Body.Close()
		if r.StatusCode != 504 {
			t.Errorf("%s: %d", v, r.StatusCode)
		}
	}
}

// Whoever gets a copy learns who the client is from the tunnel too, and not from the
// client.
func TestCopiesTellWhoTheClientIs(t *testing.T) {
	w := newWorld(t)
	copies := make(chan http.Header, 1)
	w.service("web", apiworkload.AppProtocol_HTTP11, app(t, echo))
	w.service("copy", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) { copies <- r.Header }))
	w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Filters: []*api.Filter{
		{Kind: &api.Filter_Mirror{Mirror: &api.Mirror{Backend: backend("copy", 1)}}},
	}}))
	q, _ := http.NewRequestWithContext(t.Context(), "GET", w.url, nil)
	q.Header.Set("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/admin")
	q.Header.Set("x-forwarded-proto", "https")
	r, err := httpClient(t, false).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	select {
	case h := <-copies:
		if got := h.Values("x-forwarded-client-cert"); len(got) != 1 || got[0] != r.Header.Get("x-client") {
			t.Errorf("client of the copy %q, of the request %q", got, r.Header.Get("x-client"))
		}
		if h.Get("x-request-id") != r.Header.Get("x-request") || h.Get("x-forwarded-proto") != "https" {
			t.Errorf("copy %v, request %q", h, r.Header.Get("x-request"))
		}
	case <-time.After(patience):
		t.Error("no copy came")
	}
}

// Clients that go are told apart from backends that break.
func TestAClientThatGoesIsNotTheBackendsFailure(t *testing.T) {
	for name, flush := range map[string]bool{"before the response": false, "during the response": true} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, c *http.Client) {
				w := newWorld(t)
				began := make(chan struct{})
				w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(w http.ResponseWriter, r *http.Request) {
					if flush {
						_, _ = io.WriteString(w, "a part")
						_ = http.NewResponseController(w).Flush()
					}
					close(began)
					<-r.Context().Done()
				}))
				w.routes()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				q, _ := http.NewRequestWithContext(ctx, "GET", w.url, nil)
				if flush {
					r, err := c.Do(q)
					if err != nil {
						t.Fatal(err)
					}
					defer r.Body.Close()
					cancel()
				} else {
					go func() { <-began; cancel() }()
					if r, err := c.Do(q); err == nil {
						r.Body.Close()
					}
				}
				w.recorded(func(r forward.Record) bool { return r.Flag == "DC" && (r.Status == 200) == flush && r.Err != nil })
			})
		})
	}
}

// upgraded runs an application that changes the protocol and leaves the connection to
// talk, and returns a client's connection after the change.
func upgraded(t *testing.T, w *world, talk func(net.Conn)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-served })
	go func() {
		defer close(served)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: talk\r\n\r\n")
		talk(conn)
	}()
	w.service("web", apiworkload.AppProtocol_HTTP11, ln.Addr().String())
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: talk\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// One octet at a time, so that nothing of what follows is taken.
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		t.Fatalf("%q", head)
	}
	return conn
}

// A conversation that breaks off never passes for one that has ended.
func TestABrokenUpgradeBreaksTheClients(t *testing.T) {
	w := newWorld(t)
	w.routes()
	conn := upgraded(t, w, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v", err)
	}
}

// One that has ended reaches the client whole.
func TestUpgradesEndInOrder(t *testing.T) {
	w := newWorld(t)
	w.routes()
	conn := upgraded(t, w, func(c net.Conn) { _, _ = io.Copy(c, c) })
	if _, err := io.WriteString(conn, "all of it"); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "all of it" {
		t.Errorf("%q, %v", got, err)
	}
}

// Timeouts are for answers: what an upgrade becomes has no end of its own.
func TestUpgradesOutliveTimeouts(t *testing.T) {
	const timeout = 100 * time.Millisecond
	for name, timeouts := range map[string]*api.Timeouts{
		"request": {Request: durationpb.New(timeout)}, "backend": {Backend: durationpb.New(timeout)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: timeouts}))
			conn := upgraded(t, w, func(c net.Conn) { _, _ = io.Copy(c, c) })
			word := make([]byte, 4)
			for start := time.Now(); time.Since(start) < 3*timeout; {
				if _, err := io.WriteString(conn, "word"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, word); err != nil {
					t.Fatalf("after %v: %v", time.Since(start), err)
				}
			}
		})
	}
}

// An upgrade that nobody answers ends in time all the same.
func TestUpgradesTimeOutUnanswered(t *testing.T) {
	for _, timeouts := range []*api.Timeouts{{Request: durationpb.New(50 * time.Millisecond)}, {Backend: durationpb.New(50 * time.Millisecond)}} {
		w := newWorld(t)
		w.service("web", apiworkload.AppProtocol_HTTP11, app(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		w.routes(rule(&api.Rule{Backends: []*api.Backend{backend("web", 1)}, Timeouts: timeouts}))
		q, _ := http.NewRequestWithContext(t.Context(), "GET", w.url, nil)
		q.Header.Set("connection", "upgrade")
		q.Header.Set("upgrade", "talk")
		r, err := httpClient(t, false).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 504 {
			t.Errorf("%v: %d", timeouts, r.StatusCode)
		}
	}
}

// Before tunnels are drained, nothing keeps them busy that no request needs.
func TestClosedBackendsKeepNoConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
		}
		_, err = r.ReadByte()
		ended <- err
	}()
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, ln.Addr().String())
	w.routes()
	if r, _ := get(t, httpClient(t, false), w.url); r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	w.mesh.CloseBackends()
	w.mesh.CloseBackends()
	select {
	case err := <-ended:
		if err != io.EOF {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the idle connection stays")
	}
	if r, _ := get(t, httpClient(t, false), w.url); r.StatusCode != 503 {
		t.Errorf("afterwards %s", r.Status)
	}
}

// An application that answers without having taken the content holds nobody up, even if
// the client goes on to send it.
func TestContentThatNobodyTakesHoldsNobodyUp(t *testing.T) {
	stalled := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReaderSize(conn, 512)); err == nil {
			<-stalled
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		<-t.Context().Done()
	}()
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, ln.Addr().String())
	w.routes()
	client, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	sent, count := make(chan error, 1), new(atomic.Int64)
	t.Cleanup(func() {
		client.Close()
		<-sent
	})
	go func() {
		_, err := io.WriteString(client, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 1099511627776\r\n\r\n")
		for content := make([]byte, 64<<10); err == nil; {
			_, err = client.Write(content)
			count.Add(1)
		}
		sent <- err
	}()
	for last, still := count.Load(), 0; still < 5; {
		time.Sleep(2 * time.Millisecond)
		now := count.Load()
		if still++; now != last || now == 0 {
			last, still = now, 0
		}
	}
	close(stalled) // all buffers on the way are full
	w.recorded(func(r forward.Record) bool { return r.Status == 204 })
}
