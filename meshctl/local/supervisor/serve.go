package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// serve opens both sockets and answers on them until ctx ends.
func (s *Supervisor) serve(ctx context.Context, ready func()) error {
	if err := os.WriteFile(s.dir.Pods("resolv.conf"), []byte(resolvConf), 0o644); err != nil {
		return err
	}
	ln, err := listen("unix", s.dir.Control())
	if err != nil {
		return err
	}
	execs, err := listen("unixpacket", s.dir.Exec())
	if err != nil {
		ln.Close()
		return err
	}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: zap.NewStdLog(s.log)}
	s.goUntil(ctx, func(context.Context) { server.Serve(ln) })
	s.goUntil(ctx, func(ctx context.Context) { s.serveExec(ctx, execs.(*net.UnixListener)) })
	s.goUntil(ctx, func(ctx context.Context) {
		<-ctx.Done()
		execs.Close()
		// The answer to `down` is still being written.
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(last)
	})
	ready()
	return nil
}

func listen(network, path string) (net.Listener, error) {
	ln, err := net.Listen(network, path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func (s *Supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.status(r.Context()))
	})
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) {
		events := newEvents(w)
		var request control.Apply
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDocumentsBytes)).Decode(&request); err != nil {
			events.send(control.Event{Error: "read the request: " + err.Error()})
			return
		}
		changed, err := s.apply(r.Context(), request, events.text)
		if err != nil {
			s.log.Warn("apply", zap.Int("changed", changed), zap.Error(err))
			events.send(control.Event{Error: err.Error(), Changed: changed})
			return
		}
		s.log.Info("applied", zap.Int("changed", changed))
		events.send(control.Event{Done: true, Changed: changed})
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		events := newEvents(w)
		s.stopAll(events.text)
		events.send(control.Event{Done: true})
		s.ending()
	})
	mux.HandleFunc("GET /v1/waypoints/{namespace}/{pod}/{path...}", s.forwardWaypoint)
	mux.HandleFunc("POST /v1/waypoints/{namespace}/{pod}/{path...}", s.forwardWaypoint)
	mux.HandleFunc("GET /v1/nodes/{node}/{component}/{path...}", s.forward)
	mux.HandleFunc("POST /v1/nodes/{node}/{component}/{path...}", s.forward)
	return mux
}

// forward asks a component's own HTTP interface, which listens inside the mesh
// only. What it answers is passed on; 502 says that it does not, or is not there.
func (s *Supervisor) forward(w http.ResponseWriter, r *http.Request) {
	ports := map[string]int{"ztunnel": portZtunnelAdmin}
	ns := s.home
	port := portIstiodAdmin
	if name := r.PathValue("node"); name != "control-plane" {
		n := s.node(name)
		if n == nil {
			http.Error(w, fmt.Sprintf("no node %q", name), http.StatusBadGateway)
			return
		}
		ns, port = n.net.NS, ports[r.PathValue("component")]
	}
	if port == 0 || s.settings.NoMesh {
		http.Error(w, fmt.Sprintf("no component %q there", r.PathValue("component")), http.StatusBadGateway)
		return
	}
	pass(w, r, ns, port)
}

// pass asks the HTTP interface at a port of a namespace's own host.
func pass(w http.ResponseWriter, r *http.Request, ns *netns.NS, port int) {
	url := fmt.Sprintf("http://127.0.0.1:%d/%s?%s", port, r.PathValue("path"), r.URL.RawQuery)
	req, err := http.NewRequestWithContext(r.Context(), r.Method, url, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	res, err := clientIn(ns).Do(req)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the URL, which means nothing outside the mesh
		}
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body)
}

// events is an answer of one JSON line per event, sent as they happen.
type events struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	flush func() error
}

func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &events{w: w, flush: http.NewResponseController(w).Flush}
}

func (e *events) text(text string) { e.send(control.Event{Text: text}) }

func (e *events) send(event control.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	json.NewEncoder(e.w).Encode(event)
	e.flush()
}
