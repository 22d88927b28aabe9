package jwt_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/jwt"
)

func TestFetch(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", `public, Max-Age="120"`)
		w.Write([]byte("doc"))
	})
	mux.HandleFunc("/forever", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=99999999999")
		w.Write([]byte("doc"))
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20+1)) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("doc"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	f := jwt.NewHTTPFetcher(new(net.Dialer).DialContext)
	for path, want := range map[string]string{
		"/keys": "", "/moved": "", "/forever": "", "/none": "status 404", "/long": "longer", "/loop": "redirects", "/cut": "EOF", "/slow": "deadline",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if path == "/slow" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		doc, err := f.Fetch(ctx, srv.URL+path)
		cancel()
		switch {
		case want == "" && (err != nil || string(doc.Body) != "doc"):
			t.Errorf("%s: %q, %v", path, doc.Body, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", path, err, want)
		case path == "/keys" && doc.MaxAge != 2*time.Minute, path == "/forever" && doc.MaxAge != 0:
			t.Errorf("%s: max-age %v", path, doc.MaxAge)
		}
	}
	for _, url := range []string{"file:///etc/passwd", "ftp://x/", "", "https://exa mple/"} {
		if _, err := f.Fetch(t.Context(), url); err == nil {
			t.Errorf("%q was fetched", url)
		}
	}
}

func TestFetchDoesNotLeaveHTTPS(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	srv := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer srv.Close()
	f := jwt.NewHTTPFetcher(new(net.Dialer).DialContext)
	// Its authority is nobody that we trust.
	if _, err := f.Fetch(t.Context(), srv.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

func TestFetchGuardsThisMachine(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	f := jwt.NewHTTPFetcher(nil)
	for _, url := range []string{
		srv.URL, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1), strings.Replace(srv.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"http://169.254.169.254/latest/meta-data", "http://0.0.0.0:1/", "http://[fe80::1]/", "http://224.0.0.1/",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := f.Fetch(ctx, url)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "this machine") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
