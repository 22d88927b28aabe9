package load_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		load.Serve(l)
	}()
	defer func() { l.Close(); <-served }()
	for _, mode := range []load.Mode{load.Up, load.Down, load.Echo, load.Rate, load.Connect, load.Idle} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ready := false
		result, err := load.Run(ctx, load.Job{Mode: mode, Addr: l.Addr().String(), Conns: 3, RatePerSecond: 1000, Duration: 50 * time.Millisecond}, func() {
			ready = true
			cancel()
		})
		if err != nil || result.Count < 3 || result.Seconds <= 0 {
			t.Errorf("%s: %+v, %v", mode, result, err)
		}
		if bulk := mode == load.Up || mode == load.Down; bulk != (result.Bytes > 0) || ready != (mode == load.Idle) {
			t.Errorf("%s: %+v, ready %v", mode, result, ready)
		}
	}
	if _, err := load.Run(t.Context(), load.Job{Mode: "other", Conns: 1}, nil); err == nil {
		t.Error("unknown mode passed")
	}
}

func TestModesOfHTTP(t *testing.T) {
	body := strings.Repeat("x", load.ResponseBytes)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/some/path" || r.Header.Get("X-Extra") != "yes" {
			w.WriteHeader(404)
			return
		}
		_, _ = io.WriteString(w, body)
	}))
	defer s.Close()
	job := load.Job{Addr: s.Listener.Addr().String(), Conns: 3, RatePerSecond: 1000, Duration: 50 * time.Millisecond, Path: "/some/path", Header: []string{"X-Extra: yes"}}
	for _, mode := range []load.Mode{load.HTTPEcho, load.HTTPRate, load.HTTPIdle} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		job.Mode = mode
		result, err := load.Run(ctx, job, cancel)
		if err != nil || result.Count < 3 {
			t.Errorf("%s: %+v, %v", mode, result, err)
		}
	}
	job.Path = "/other"
	if _, err := load.Run(t.Context(), job, nil); err == nil {
		t.Error("404 passed")
	}
}
