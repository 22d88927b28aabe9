package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/ztunnel/agent/api"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
)

// pods takes every pod. The interface over its socket, with real pods, is
// tested in ztunnel/agent/app.
type pods struct{ last enrol.Pod }

func (p *pods) Enrol(_ context.Context, pod enrol.Pod) error { p.last = pod; return nil }
func (p *pods) Remove(context.Context, string) error         { return nil }
func (p *pods) Pods() []enrol.Status                         { return nil }
func (p *pods) Pod(string) (enrol.Status, bool)              { return enrol.Status{Pod: p.last}, true }

func put(h http.Handler, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("PUT", "/v1/pods/uid-1", strings.NewReader(body)))
	return rec
}

const whole = `{"name":"a","namespace":"b","serviceAccount":"c","netnsPath":"/d","strict":true}`

func TestPutReachesTheManager(t *testing.T) {
	p := &pods{}
	rec := put(api.Handler(p, readiness.New().Handler()), whole)
	want := enrol.Pod{UID: "uid-1", Name: "a", Namespace: "b", ServiceAccount: "c", NetnsPath: "/d", Strict: true}
	if rec.Code != http.StatusOK || p.last != want {
		t.Errorf("%d %s, pod %+v", rec.Code, rec.Body, p.last)
	}
}

func TestTruncatedAndOversizedBodiesAreRefused(t *testing.T) {
	h := api.Handler(&pods{}, readiness.New().Handler())
	for n := range whole {
		if rec := put(h, whole[:n]); rec.Code != http.StatusBadRequest {
			t.Errorf("%d of %d bytes: %d", n, len(whole), rec.Code)
		}
	}
	if rec := put(h, `{"name":"`+strings.Repeat("a", 64<<10)+`"}`); rec.Code != http.StatusBadRequest {
		t.Errorf("an oversized body: %d", rec.Code)
	}
}

func FuzzPut(f *testing.F) {
	f.Add(whole)
	h := api.Handler(&pods{}, readiness.New().Handler())
	f.Fuzz(func(t *testing.T, body string) {
		if rec := put(h, body); rec.Code != http.StatusOK && rec.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", body, rec.Code)
		}
	})
}
