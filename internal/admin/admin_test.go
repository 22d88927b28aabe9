package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type levels struct{ level string }

func (l *levels) Set(s string) error {
	if s == "loud" {
		return errors.New(`unknown level "loud"`)
	}
	l.level = s
	return nil
}
func (l *levels) Reset()         { l.level = "info" }
func (l *levels) String() string { return l.level }

func server(t *testing.T, quit func()) *admin.Server {
	t.Helper()
	s, err := admin.New(admin.Config{
		Addr: "localhost:0", Component: "ztunnel", Levels: &levels{"info"}, Quit: quit,
		Dump: func() any { return map[string]int{"workloads": 3} },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRefusesAddressThatIsNotLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:15000", ":15000", "10.0.0.1:15000", "[::]:15000", "example.com:15000", "nonsense"} {
		if _, err := admin.New(admin.Config{Addr: addr}); err == nil {
			t.Errorf("New accepted %q", addr)
		} else if !strings.Contains(err.Error(), addr) {
			t.Errorf("error %q does not name %q", err, addr)
		}
	}
	for _, addr := range []string{"localhost:15000", "127.0.0.1:15000", "[::1]:15000"} {
		if _, err := admin.New(admin.Config{Addr: addr}); err != nil {
			t.Errorf("New(%q): %v", addr, err)
		}
	}
}

func TestPages(t *testing.T) {
	var quits atomic.Int32
	h := server(t, func() { quits.Add(1) }).Handler()
	for _, tc := range []struct {
		method, target string
		status         int
		body           string
	}{
		{"GET", "/", 200, "/config_dump"},
		{"GET", "/config_dump", 200, `"workloads": 3`},
		{"GET", "/logging", 200, "info"},
		{"GET", "/logging?level=debug", 200, "info"}, // reading changes nothing
		{"POST", "/logging?level=access:debug", 200, "access:debug"},
		{"POST", "/logging?level=loud", 400, `unknown level "loud"`},
		{"POST", "/logging?lvl=debug", 400, `unknown parameter "lvl"`},
		{"POST", "/logging?reset", 200, "info"},
		{"GET", "/quitquitquit", 405, ""},
		{"POST", "/quitquitquit", 200, "shutting down"},
		{"POST", "/quitquitquit", 200, "shutting down"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"GET", "/nothing", 404, ""},
	} {
		r := httptest.NewRequest(tc.method, "http://localhost:15000"+tc.target, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.body) {
			t.Errorf("%s %s: %d %q, want %d with %q", tc.method, tc.target, w.Code, w.Body, tc.status, tc.body)
		}
	}
	if n := quits.Load(); n != 1 {
		t.Errorf("Quit called %d times, want once", n)
	}
}

func TestRefusesRequestsOfOtherSites(t *testing.T) {
	h := server(t, func() { t.Error("quit by another site") }).Handler()
	for name, change := range map[string]func(*http.Request){
		"rebound name":   func(r *http.Request) { r.Host = "evil.example:15000" },
		"foreign origin": func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"other port":     func(r *http.Request) { r.Header.Set("Origin", "http://localhost:8080") },
		"fetch metadata": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		r := httptest.NewRequest("POST", "http://localhost:15000/quitquitquit", nil)
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", name, w.Code)
		}
	}
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	s := server(t, nil)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr().String() + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	var got map[string]int
	if err := json.Unmarshal(body, &got); err != nil || got["workloads"] != 3 {
		t.Errorf("config_dump: %s (%v)", body, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := client.Get("http://" + s.Addr().String() + "/"); err == nil {
		t.Error("still serving after Run returned")
	}
}

func TestListenAndServeNamesTheAddressInErrors(t *testing.T) {
	err := admin.ListenAndServe(t.Context(), "192.0.2.1:15020", http.NotFoundHandler())
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1:15020") {
		t.Errorf("error %v does not name the address", err)
	}
}
