package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func begin(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(logged(h))
	t.Cleanup(s.Close)
	return s.URL
}

func get(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return resp.StatusCode, string(b)
}

func TestHTTPBinAnswersAsAsked(t *testing.T) {
	url := begin(t, httpbin(config{version: "v7"}))
	for _, tt := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/get?a=1", 200, `"version": "v7"`},
		{"POST", "/post", 200, `"data": "content"`},
		{"GET", "/post", 405, ""},
		{"PURGE", "/anything/x", 200, `"method": "PURGE"`},
		{"GET", "/headers", 200, `"X-Probe": [`},
		{"GET", "/ip", 200, `"origin": "127.0.0.1"`},
		{"GET", "/status/418", 418, ""},
		{"GET", "/status/99", 400, "from 200 to 599"},
		{"GET", "/status/600", 400, "from 0 to 599"},
		{"GET", "/status/x", 400, "from 0 to 599"},
		{"GET", "/delay/0.01", 200, `"url"`},
		{"GET", "/delay/-1", 400, "from 0 to 60"},
		{"GET", "/delay/NaN", 400, "from 0 to 60"},
		{"GET", "/bytes/100000", 200, ""},
		{"GET", "/bytes/999999999", 400, "number from 0"},
		{"GET", "/stream/3", 200, "{\"id\":0}\n{\"id\":1}\n{\"id\":2}\n"},
		{"GET", "/seen", 200, `"PURGE /anything/x"`},
		{"GET", "/healthz", 200, ""},
		{"GET", "/nothing", 404, ""},
	} {
		status, body := get(t, tt.method, url+tt.path, "x-probe", "there")
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s: %d, %.300q", tt.method, tt.path, status, body)
		}
	}
}

func TestThePageHasWhatItsServicesSay(t *testing.T) {
	var user string
	ratingsURL := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user = r.Header.Get("end-user"); user == "eve" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		ratings(config{}).ServeHTTP(w, r)
	}))
	detailsURL := begin(t, details(config{}))
	for _, tt := range []struct {
		stars, user string
		want        []string
		not         string
	}{
		{"", "jane", []string{`"version": "v1"`, "William Shakespeare"}, "rating"},
		{"red", "jane", []string{`"color": "red"`, `"stars": 5`, `"stars": 4`}, "error"},
		{"red", "eve", []string{"ratings are not available"}, "stars"},
	} {
		reviewsURL := begin(t, reviews(config{version: "v1", stars: tt.stars, ratings: ratingsURL}))
		pageURL := begin(t, productpage(config{details: detailsURL, reviews: reviewsURL}))
		status, body := get(t, "GET", pageURL+"/api/v1/products/0", "end-user", tt.user)
		for _, want := range tt.want {
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("stars %q for %s: %d, without %s:\n%s", tt.stars, tt.user, status, want, body)
			}
		}
		if strings.Contains(body, tt.not) {
			t.Errorf("stars %q for %s: has %s:\n%s", tt.stars, tt.user, tt.not, body)
		}
		if tt.stars != "" && user != tt.user {
			t.Errorf("ratings were asked by %q", user)
		}
		if status, body := get(t, "GET", pageURL+"/productpage", "end-user", tt.user); status != 200 || !strings.Contains(body, "<h1>The Comedy of Errors</h1>") {
			t.Errorf("the page: %d, %s", status, body)
		}
	}
	// A service that is away leaves its part out.
	pageURL := begin(t, productpage(config{details: detailsURL, reviews: detailsURL}))
	if _, body := get(t, "GET", pageURL+"/api/v1/products/0"); !strings.Contains(body, "reviews are not available") || !strings.Contains(body, "William") {
		t.Error(body)
	}
}

func TestAProgramEndsWhenItIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, "127.0.0.1:0", http.NotFoundHandler()) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}
