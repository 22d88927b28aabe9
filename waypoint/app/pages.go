package app

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"

	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/waypoint/report"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

// pages adds what a waypoint shows to its admin interface.
func (w *waypoint) pages(srv *admin.Server) {
	srv.Handle("GET /stats", "all counters by name, ?filter=text | ?format=prometheus", http.HandlerFunc(w.stats))
	srv.Handle("GET /clusters", "endpoints of the backends in use, ?format=json", http.HandlerFunc(w.clusters))
	srv.Handle("GET /top", "services and routes summed up since the start, as JSON", http.HandlerFunc(w.top))
	srv.Handle("GET /tap", "requests as they end, one JSON object a line; filters: service, route, method, path, status, source, policy, limit, min-latency, decision", http.HandlerFunc(w.tap))
	srv.Handle("GET /ratelimits", "rate limits with their live counters, as JSON: ?policy=&rule=&keys=", http.HandlerFunc(w.rateLimits))
	srv.Handle("GET /explain/request", "what would become of a request: ?service=&port=&method=&path=&authority=&header=k:v&from=ns/account", http.HandlerFunc(w.explainRequest))
}

func writeJSON(rw http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_, _ = rw.Write(append(body, '\n'))
}

// stats shows the metrics, in lines of "name{labels}: value" like Envoy's.
func (w *waypoint) stats(rw http.ResponseWriter, r *http.Request) {
	families, err := w.registry.Gather()
	if err != nil {
		http.Error(rw, "stats: "+err.Error(), http.StatusInternalServerError)
		return
	}
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			http.Error(rw, "stats: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	q := r.URL.Query()
	if q.Get("format") == "prometheus" {
		_, _ = rw.Write(out.Bytes())
		return
	}
	filter := q.Get("filter")
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "#") || filter != "" && !strings.Contains(line, filter) {
			continue
		}
		if i := strings.LastIndexByte(line, ' '); i > 0 {
			line = line[:i] + ":" + line[i:]
		}
		fmt.Fprint(rw, line)
	}
}

// clusters shows backends and their endpoints.
func (w *waypoint) clusters(rw http.ResponseWriter, r *http.Request) {
	all := w.mesh.Backends()
	slices.SortFunc(all, func(a, b upstream.Status) int { return cmp.Compare(a.Name, b.Name) })
	if r.URL.Query().Get("format") == "json" {
		if all == nil {
			all = []upstream.Status{}
		}
		writeJSON(rw, all)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, b := range all {
		fmt.Fprintf(rw, "%s::balancer::%s\n", b.Name, b.Balancer)
		if b.Panicking {
			fmt.Fprintf(rw, "%s::panicking::true\n", b.Name)
		}
		for _, l := range b.Limits {
			fmt.Fprintf(rw, "%s::%s::%d of %s, %d turned away\n", b.Name, l.Limit, l.Active, maximum(l.Max), l.Overflow)
		}
		for _, t := range b.Targets {
			at := t.Addr.String()
			if !t.Addr.Addr().IsValid() {
				at = t.Hostname + ":" + strconv.Itoa(int(t.Addr.Port()))
			}
			fmt.Fprintf(rw, "%s::%s::%s, active %d, connections %d (%d idle), weight %d, %s\n",
				b.Name, at, stateOf(t), t.Active, t.Connections, t.Idle, t.Weight, t.UID)
		}
	}
}

func maximum(n int64) string {
	if n == 0 {
		return "any"
	}
	return strconv.FormatInt(n, 10)
}

func stateOf(t upstream.TargetStatus) string {
	switch {
	case !t.Healthy:
		return "not ready"
	case t.Failing:
		return "failing its checks"
	case t.Ejected > 0:
		return fmt.Sprintf("ejected for another %v", t.Ejected.Round(time.Millisecond))
	case !t.Serving:
		return "kept back"
	}
	return "serving"
}

func (w *waypoint) top(rw http.ResponseWriter, _ *http.Request) {
	list := w.report.Top()
	slices.SortFunc(list, func(a, b report.Summary) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Protocol, b.Protocol))
	})
	writeJSON(rw, map[string]any{"time": time.Now(), "active": w.forward.Active(), "routes": list})
}

// tap streams requests until the client goes or the waypoint ends. With session it
// answers what has come since the last question of that session, after wait at most: for
// who cannot take an answer without end.
func (w *waypoint) tap(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	session, wait := q.Get("session"), q.Get("wait")
	q.Del("session")
	q.Del("wait")
	filter, err := report.ParseFilter(q)
	if err != nil {
		http.Error(rw, "tap: "+err.Error(), http.StatusBadRequest)
		return
	}
	if session != "" {
		w.tapOnce(rw, r, session, wait, filter)
		return
	}
	tap := w.report.Watch(filter)
	if tap == nil {
		http.Error(rw, "tap: too many are watching already", http.StatusTooManyRequests)
		return
	}
	defer tap.Close()
	rw.Header().Set("Content-Type", "application/x-ndjson")
	flusher, _ := rw.(http.Flusher)
	flusher.Flush()
	encoder := json.NewEncoder(rw)
	for {
		select {
		case l := <-tap.C:
			if encoder.Encode(l) != nil {
				return
			}
			if len(tap.C) == 0 {
				flusher.Flush()
			}
		case <-r.Context().Done():
			return
		case <-w.report.Done():
			return
		}
	}
}

// sessions are taps between two questions. The zero value has none.
type sessions struct {
	mu  sync.Mutex
	all map[string]*session
}

type session struct {
	tap   *report.Tap
	until *time.Timer // ends it when nobody asks any more
}

// take finds the session or begins it, and puts its end off.
func (s *sessions) take(name string, begin func() *report.Tap) *report.Tap {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[name]
	if x == nil {
		tap := begin()
		if tap == nil {
			return nil
		}
		if s.all == nil {
			s.all = map[string]*session{}
		}
		x = &session{tap: tap}
		x.until = time.AfterFunc(tapSession, func() { s.end(name) })
		s.all[name] = x
	}
	x.until.Reset(tapSession)
	return x.tap
}

func (s *sessions) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.all[name]; x != nil {
		x.until.Stop()
		x.tap.Close()
		delete(s.all, name)
	}
}

func (s *sessions) close() {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.all))
	s.mu.Unlock()
	for _, name := range names {
		s.end(name)
	}
}

func (w *waypoint) tapOnce(rw http.ResponseWriter, r *http.Request, name, wait string, filter func(*report.Live) bool) {
	d := time.Second
	if wait != "" {
		var err error
		if d, err = time.ParseDuration(wait); err != nil || d < 0 || d > tapSession/2 {
			http.Error(rw, fmt.Sprintf("tap: wait: %q is not a duration up to %v", wait, tapSession/2), http.StatusBadRequest)
			return
		}
	}
	if len(name) > 64 {
		http.Error(rw, "tap: session: longer than 64 bytes", http.StatusBadRequest)
		return
	}
	tap := w.sessions.take(name, func() *report.Tap { return w.report.Watch(filter) })
	if tap == nil {
		http.Error(rw, "tap: too many are watching already", http.StatusTooManyRequests)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	list := []report.Live{}
	select {
	case l := <-tap.C:
		list = append(list, l)
	case <-timer.C:
	case <-r.Context().Done():
	case <-w.report.Done():
	}
	for len(list) < tapAnswer {
		select {
		case l := <-tap.C:
			list = append(list, l)
			continue
		default: // len(tap.C) is no promise: another may ask in the same session
		}
		break
	}
	writeJSON(rw, list)
}
