package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func result(t *testing.T, l *load) loadResult {
	t.Helper()
	var r loadResult
	if err := json.Unmarshal(l.snapshot().(json.RawMessage), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, spec loadSpec) loadResult {
	t.Helper()
	spec.Workers, spec.Timeout = 4, 5*time.Second
	l, err := newLoad(spec)
	if err != nil {
		t.Fatal(err)
	}
	l.run(t.Context())
	return result(t, l)
}

func TestEveryRequestIsCountedOnceAndHasItsOwnConnection(t *testing.T) {
	var requests, connections atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); n%5 == 0 {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"pod":"a","client":%q,"marker":%q}`, r.RemoteAddr, r.Header.Get(markerHeader))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	r := run(t, loadSpec{URL: s.URL, Requests: 50, Marker: "m"})
	if r.Sent != 50 || r.OK != 40 || r.Failed != 10 || r.Reasons["status 503"] != 10 || r.Pods["a"] != 40 || len(r.Failures) != 10 {
		t.Errorf("%+v", r)
	}
	if requests.Load() != 50 || connections.Load() != 50 {
		t.Errorf("the server saw %d requests on %d connections", requests.Load(), connections.Load())
	}
}

func TestReasonsAreTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := ln.Addr().String()
	ln.Close()
	abrupt := server(t, func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	})
	closing := server(t, func(c net.Conn) {
		// What was sent is read first: unread bytes would make the end a reset.
		_, _ = c.Read(make([]byte, 64<<10))
		time.Sleep(10 * time.Millisecond)
		c.Close()
	})
	for addr, want := range map[string]string{refused: "dial: refused", abrupt: "read: reset", closing: "closed early"} {
		_, err := fetch(t.Context(), nil, "http://"+addr+"/", "", time.Second)
		if err == nil {
			t.Errorf("%s: answered", want)
			continue
		}
		got := reason(err)
		// A reset can come while the request is still being written.
		if got != want && !(want == "read: reset" && (got == "write: reset" || got == "dial: reset")) {
			t.Errorf("%q for %v, want %q", got, err, want)
		}
	}
	silent := server(t, func(c net.Conn) { <-t.Context().Done(); c.Close() })
	_, err = fetch(t.Context(), nil, "http://"+silent+"/", "", 50*time.Millisecond)
	if got := reason(err); got != "timeout" && got != "read: timeout" {
		t.Errorf("%q for %v", got, err)
	}
}

func server(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return ln.Addr().String()
}

func TestHeldConnectionTellsItsBreak(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		first <- c
		buf := make([]byte, 1024)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	h, err := newHold(holdSpec{Addr: ln.Addr().String(), Every: time.Millisecond, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); h.run(context.WithoutCancel(t.Context())) }()
	c := <-first
	for {
		h.mu.Lock()
		n := h.result.Echoed
		h.mu.Unlock()
		if n >= 3 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	c.Close()
	ln.Close()
	<-done
	if h.failed() != 1 || h.result.Running || h.result.Connected != 1 {
		t.Errorf("%+v", h.result)
	}
}
