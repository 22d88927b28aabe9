package jwt

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRedirectsDoNotLeaveTLS(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	srv := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer srv.Close()
	f := NewHTTPFetcher(nil)
	f.client.Transport = srv.Client().Transport
	if _, err := f.Fetch(t.Context(), srv.URL); err == nil || !strings.Contains(err.Error(), "redirected from https") {
		t.Error(err)
	}
}
