package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync"
)

// Levels is what /logging changes; *logging.Levels is one.
type Levels interface {
	// Set takes "debug" or "logger:debug", several separated by commas.
	Set(spec string) error
	// Reset restores the levels of the start.
	Reset()
	// String shows the levels in force.
	String() string
}

// Config says what a Server shows. Nil fields leave their page out.
type Config struct {
	// Addr is host:port to listen on; the host must be localhost or a loopback address.
	Addr string
	// Component names the process on the index page.
	Component string
	// Dump returns what /config_dump shows as JSON. It is called once per request
	// and must be safe for concurrent use.
	Dump func() any
	// Levels is what /logging shows and changes.
	Levels Levels
	// Quit asks the process to end in order; POST /quitquitquit calls it once.
	Quit func()
}

// Server is one admin interface. Create it with New; it is safe for concurrent use.
type Server struct {
	cfg  Config
	mux  *http.ServeMux
	quit sync.Once

	mu        sync.Mutex
	pages     []page
	listeners []net.Listener
}

type page struct{ Path, Description string }

// New checks cfg and registers the pages; it does not listen yet.
func New(cfg Config) (*Server, error) {
	if err := loopback(cfg.Addr); err != nil {
		return nil, fmt.Errorf("admin address %q: %w", cfg.Addr, err)
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /{$}", s.index)
	if cfg.Dump != nil {
		s.Handle("GET /config_dump", "the configuration and state in force, as JSON", http.HandlerFunc(s.dump))
	}
	if cfg.Levels != nil {
		s.Handle("GET /logging", "log levels in force", http.HandlerFunc(s.showLevels))
		s.Handle("POST /logging", "?level=debug | ?level=access:debug | ?reset", http.HandlerFunc(s.setLevels))
	}
	if cfg.Quit != nil {
		s.Handle("POST /quitquitquit", "drain and end the process", http.HandlerFunc(s.quitNow))
	}
	s.Handle("GET /debug/pprof/", "Go profiles", http.HandlerFunc(pprof.Index))
	s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s, nil
}

// Handle adds a page; pattern is a pattern of http.ServeMux ("GET /debug/x").
// description appears on the index.
func (s *Server) Handle(pattern, description string, h http.Handler) {
	s.mux.Handle(pattern, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = append(s.pages, page{pattern, description})
}

// Handler returns all pages behind the checks that every request passes.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := local(r); err != nil {
			http.Error(w, "admin interface: "+err.Error(), http.StatusForbidden)
			return
		}
		s.mux.ServeHTTP(w, r)
	})
}

// Listen opens the sockets, so that Addr is known and a taken port is an error
// at start. Run calls it when it was not called.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) > 0 {
		return nil
	}
	lns, err := listen(s.cfg.Addr)
	if err != nil {
		return err
	}
	s.listeners = lns
	return nil
}

// Addr returns the address that the server listens on; nil before Listen.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) == 0 {
		return nil
	}
	return s.listeners[0].Addr()
}

// Run serves until ctx ends; then it closes the sockets and returns nil.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	lns := s.listeners
	s.mu.Unlock()
	return Serve(ctx, s.Handler(), lns...)
}

// loopback tells why addr is not a place where only this machine can connect.
func loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if !loopbackHost(host) {
		return errors.New("must be localhost, 127.0.0.1 or [::1]: the interface is for this machine only")
	}
	return nil
}

func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// local refuses requests that a browser was made to send: a foreign Host means a
// rebound name, a foreign Origin another site's script or form.
func local(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		host = h
	}
	if !loopbackHost(host) {
		return fmt.Errorf("host %q is not this machine", r.Host)
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return fmt.Errorf("origin %q is another site", origin)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return nil
	}
	return errors.New("request comes from another site")
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html><head><title>{{.Component}}</title><style>body{font-family:sans-serif;margin:2em}td{padding:.2em 1em}</style></head>
<body><h1>{{.Component}}</h1><table>
{{range .Pages}}<tr><td>{{if .Link}}<a href="{{.Link}}">{{.Path}}</a>{{else}}<code>{{.Path}}</code>{{end}}</td><td>{{.Description}}</td></tr>
{{end}}</table></body></html>
`))

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	type row struct{ Link, Path, Description string }
	var rows []row
	s.mu.Lock()
	for _, p := range s.pages {
		r := row{Path: p.Path, Description: p.Description}
		if path, ok := strings.CutPrefix(p.Path, "GET "); ok && !strings.Contains(path, "{") {
			r.Link, r.Path = path, path
		}
		rows = append(rows, r)
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = indexPage.Execute(w, map[string]any{"Component": s.cfg.Component, "Pages": rows})
}

func (s *Server) dump(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(s.cfg.Dump(), "", "  ")
	if err != nil {
		http.Error(w, "config_dump: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func (s *Server) showLevels(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "current log level is %s\n", s.cfg.Levels)
}

func (s *Server) setLevels(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for name := range q {
		if name != "level" && name != "reset" {
			http.Error(w, fmt.Sprintf("logging: unknown parameter %q; use level or reset", name), http.StatusBadRequest)
			return
		}
	}
	if q.Has("reset") {
		s.cfg.Levels.Reset()
	}
	if level := q.Get("level"); level != "" {
		if err := s.cfg.Levels.Set(level); err != nil {
			http.Error(w, "logging: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.showLevels(w, r)
}

func (s *Server) quitNow(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "shutting down")
	s.quit.Do(s.cfg.Quit)
}
