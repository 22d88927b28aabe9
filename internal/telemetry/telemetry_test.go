package telemetry_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/telemetry"
)

func TestHandlerServesTheBuildAndOpenMetricsWhenAsked(t *testing.T) {
	h := telemetry.Handler(telemetry.NewRegistry("ztunnel", "v1"))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(rec.Body.String(), `istio_build{component="ztunnel",tag="v1"} 1`) {
		t.Errorf("no istio_build in:\n%s", rec.Body)
	}
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if !strings.HasPrefix(rec.Header().Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(rec.Body.String(), "# EOF\n") {
		t.Errorf("no OpenMetrics: %s", rec.Header().Get("Content-Type"))
	}
}
