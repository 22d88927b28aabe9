package readiness_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/readiness"
)

func TestReadyWhenTheLastPendingTaskEnded(t *testing.T) {
	r := readiness.New()
	xds, pod1, pod2 := r.Pending("xds first sync"), r.Pending("pods"), r.Pending("pods")
	if ready, pending := r.Status(); ready || !slices.Equal(pending, []string{"pods", "xds first sync"}) {
		t.Fatalf("Status() = %v, %v", ready, pending)
	}
	xds()
	xds()
	pod1()
	if ready, pending := r.Status(); ready || !slices.Equal(pending, []string{"pods"}) {
		t.Fatalf("Status() = %v, %v", ready, pending)
	}
	pod2()
	if ready, pending := r.Status(); !ready || pending != nil {
		t.Fatalf("Status() = %v, %v", ready, pending)
	}
}

func TestHandlerNamesWhatIsPending(t *testing.T) {
	r := readiness.New()
	done := r.Pending("certificates")
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz/ready", nil))
	if rec.Code != 500 || !strings.Contains(rec.Body.String(), "certificates") {
		t.Fatalf("pending: %d %q", rec.Code, rec.Body)
	}
	done()
	rec = httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz/ready", nil))
	if rec.Code != 200 || rec.Body.String() != "ready\n" {
		t.Fatalf("ready: %d %q", rec.Code, rec.Body)
	}
}
