package main

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// maxBytes bounds what /bytes sends and what is read of a request, in bytes.
	maxBytes = 16 << 20
	// maxDelay bounds /delay.
	maxDelay = 60 * time.Second
	// maxLines bounds /stream.
	maxLines = 1000
	// maxSeen is how many requests /seen remembers.
	maxSeen = 100
)

// memory has the last requests, "METHOD URI". It is safe for concurrent use.
type memory struct {
	mu    sync.Mutex
	lines []string
}

func (m *memory) add(r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.lines) == maxSeen {
		m.lines = append(m.lines[:0], m.lines[1:]...)
	}
	m.lines = append(m.lines, r.Method+" "+r.URL.RequestURI())
}

func (m *memory) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.lines...)
}

// seen is what a request was.
type seen struct {
	Args    map[string][]string `json:"args"`
	Data    string              `json:"data,omitempty"`
	Headers http.Header         `json:"headers"`
	Method  string              `json:"method"`
	Origin  string              `json:"origin"`
	Proto   string              `json:"proto"`
	URL     string              `json:"url"`
	Version string              `json:"version"`
}

// httpbin answers requests with what they were, or as they ask to be answered.
func httpbin(c config) http.Handler {
	mux, memory := http.NewServeMux(), &memory{}
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"seen": memory.all(), "version": c.version})
	})
	echo := func(w http.ResponseWriter, r *http.Request) {
		memory.add(r)
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBytes))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		writeJSON(w, http.StatusOK, see(c, r, string(data)))
	}
	for _, pattern := range []string{"GET /get", "POST /post", "PUT /put", "PATCH /patch", "DELETE /delete", "/anything", "/anything/"} {
		mux.HandleFunc(pattern, echo)
	}
	mux.HandleFunc("GET /headers", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]http.Header{"headers": see(c, r, "").Headers})
	})
	mux.HandleFunc("GET /ip", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"origin": origin(r)})
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, ok := number(w, r, "code", 599)
		if !ok {
			return
		}
		if code < 200 {
			http.Error(w, "a status is from 200 to 599", http.StatusBadRequest)
			return
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/delay/{seconds}", func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.ParseFloat(r.PathValue("seconds"), 64)
		if err != nil || !(seconds >= 0 && seconds <= maxDelay.Seconds()) {
			http.Error(w, "seconds are from 0 to 60", http.StatusBadRequest)
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			echo(w, r)
		}
	})
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, ok := number(w, r, "n", maxBytes)
		if !ok {
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(n))
		_, _ = io.CopyN(w, rand.Reader, int64(n))
	})
	mux.HandleFunc("GET /stream/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, ok := number(w, r, "n", maxLines)
		if !ok {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		line := json.NewEncoder(w)
		for i := range n {
			if line.Encode(map[string]int{"id": i}) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET /response-headers", func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.URL.Query() {
			for _, v := range values {
				w.Header().Add(name, v)
			}
		}
		writeJSON(w, http.StatusOK, r.URL.Query())
	})
	return mux
}

func see(c config, r *http.Request, data string) seen {
	h := r.Header.Clone()
	h.Set("Host", r.Host)
	return seen{
		Args: r.URL.Query(), Data: data, Headers: h, Method: r.Method, Origin: origin(r), Proto: r.Proto,
		URL: "http://" + r.Host + r.URL.RequestURI(), Version: c.version,
	}
}

func origin(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// number reads a part of the path from 0 to limit, or answers 400.
func number(w http.ResponseWriter, r *http.Request, name string, limit int) (int, bool) {
	n, err := strconv.Atoi(r.PathValue(name))
	if err != nil || n < 0 || n > limit {
		http.Error(w, name+" is a number from 0 to "+strconv.Itoa(limit), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
