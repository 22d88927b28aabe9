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
type pods struct {
	last enrol.Pod
	gone bool
}

func (p *pods) Enrol(_ context.Context, pod enrol.Pod) error { p.last = pod; return nil }
func (p *pods) Remove(context.Context, string) error         { return nil }
func (p *pods) Gone(context.Context, string) error           { p.gone = true; return nil }
func (p *pods) Pods() []enrol.Status                         { return nil }
func (p *pods) Pod(string) (enrol.Status, bool)              { return enrol.Status{Pod: p.last}, true }

func handler(p *pods) http.Handler {
	return api.Handler(api.Config{Pods: p, Ready: readiness.New().Handler()})
}

func put(h http.Handler, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("PUT", "/v1/pods/uid-1", strings.NewReader(body)))
	return rec
}

const whole = `{"name":"a","namespace":"b","serviceAccount":"c","netnsPath":"/d","strict":true,"running":true}`

func TestPutReachesTheManager(t *testing.T) {
	p := &pods{}
	rec := put(handler(p), whole)
	want := enrol.Pod{UID: "uid-1", Name: "a", Namespace: "b", ServiceAccount: "c", NetnsPath: "/d", Strict: true, Running: true}
	if rec.Code != http.StatusOK || p.last != want {
		t.Errorf("%d %s, pod %+v", rec.Code, rec.Body, p.last)
	}
}

func TestDeleteTellsWhetherThePodIsGone(t *testing.T) {
	for query, want := range map[string]struct {
		code int
		gone bool
	}{"": {200, false}, "?gone=false": {200, false}, "?gone=true": {200, true}, "?gone=perhaps": {400, false}} {
		p := &pods{}
		rec := httptest.NewRecorder()
		handler(p).ServeHTTP(rec, httptest.NewRequest("DELETE", "/v1/pods/uid-1"+query, nil))
		if rec.Code != want.code || p.gone != want.gone {
			t.Errorf("%q: %d %s, gone %v", query, rec.Code, rec.Body, p.gone)
		}
	}
}

func TestTruncatedAndOversizedBodiesAreRefused(t *testing.T) {
	h := handler(&pods{})
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
	h := handler(&pods{})
	f.Fuzz(func(t *testing.T, body string) {
		if rec := put(h, body); rec.Code != http.StatusOK && rec.Code != http.StatusBadRequest {
			t.Errorf("%q: %d", body, rec.Code)
		}
	})
}
