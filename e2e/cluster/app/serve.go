package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// answer is what a server tells about itself and its client.
type answer struct {
	Pod  string `json:"pod"`
	Node string `json:"node"`
	IP   string `json:"ip"`
	// Client is the remote address as the server saw it.
	Client string `json:"client"`
	// Version is the server's --version, to tell the generations of a rollout apart.
	Version string `json:"version,omitempty"`
	// Marker is what the client sent in X-Marker.
	Marker string `json:"marker,omitempty"`
}

func about(client string) answer {
	return answer{Pod: os.Getenv("POD_NAME"), Node: os.Getenv("NODE_NAME"), IP: os.Getenv("POD_IP"), Client: client}
}

// serve runs all servers until SIGTERM. Then it serves on for the linger time, so
// that clients which do not know yet that it leaves find it, refuses readiness,
// and lets open requests end.
func serve(ctx context.Context, args []string) error {
	f := flags("serve")
	httpAddr := f.String("http", ":8080", "HTTP; / tells who answers, /ready is 200 until SIGTERM, /bytes?n=N sends N bytes, /slow?ms=N waits")
	echoAddr := f.String("tcp", ":9000", "TCP echo")
	firstAddr := f.String("first", ":9001", "TCP, the server speaks first: one line about itself; then echo")
	linger := f.Duration("linger", 5*time.Second, "how long to serve on after SIGTERM")
	version := f.String("version", "", "a text that answers carry")
	if _, err := parse(f, args, 0); err != nil {
		return err
	}
	failed := make(chan error, 4)
	server := &http.Server{Addr: *httpAddr, Handler: handler(ctx, *version), ReadHeaderTimeout: 10 * time.Second}
	go func() { failed <- server.ListenAndServe() }()
	for addr, first := range map[string]bool{*echoAddr: false, *firstAddr: true} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		defer ln.Close()
		go func() { failed <- echo(ln, first) }()
	}
	jobs, err := listenJobs()
	if err != nil {
		return err
	}
	defer jobs.Close()
	go func() { failed <- http.Serve(jobs, newJobs()) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(*linger):
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(end)
}

func handler(ctx context.Context, version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if ctx.Err() != nil {
			http.Error(w, "leaving", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.CopyN(w, repeat(r.Header.Get(markerHeader)+"."), n)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		_, _ = io.WriteString(w, "done\n")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a := about(r.RemoteAddr)
		a.Version, a.Marker = version, r.Header.Get(markerHeader)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a)
	})
	return mux
}

// repeat is an endless reader of s.
type repeat string

func (s repeat) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], s)
	}
	return n, nil
}

// echo sends back every line with what the server knows before it, and, when
// first, greets before it reads.
func echo(ln net.Listener, first bool) error {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if first {
				if err := json.NewEncoder(c).Encode(about(c.RemoteAddr().String())); err != nil {
					return
				}
			}
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if strings.TrimSpace(line) == "who" {
					line = fmt.Sprintf("%s %s\n", os.Getenv("POD_NAME"), c.RemoteAddr())
				}
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		}()
	}
}
