package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/websocket"
)

// The ports of web.
const (
	portHTTP = 8080 // HTTP/1.1 and HTTP/2 without TLS
	portGRPC = 8081
)

// web serves HTTP and gRPC until one listener fails.
func web(args []string) error {
	if len(args) != 0 {
		return errors.New("usage: peer web")
	}
	h, err := net.Listen("tcp", ":"+strconv.Itoa(portHTTP))
	if err != nil {
		return err
	}
	g, err := net.Listen("tcp", ":"+strconv.Itoa(portGRPC))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: webHandler(), ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(h) }()
	go func() { failed <- grpcServer().Serve(g) }()
	fmt.Println("serving")
	return <-failed
}

// webHandler has a path for each thing that proxies get wrong.
func webHandler() http.Handler {
	mux := http.NewServeMux()
	// Tells what it saw.
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s\n", r.Method, r.URL.RequestURI(), r.Proto)
	})
	// Reads the content and tells its length, its hash and how it came.
	mux.HandleFunc("/sink", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		framing := "length"
		if r.ContentLength < 0 {
			framing = "chunks"
		}
		fmt.Fprintf(w, "%d %s %s\n", n, hex.EncodeToString(sum.Sum(nil)), framing)
	})
	// Answers before it has read the content, which it never does.
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	})
	// Sends back what comes, as it comes.
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := c.Flush(); err != nil {
			return
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Body.Read(buf)
			if _, werr := w.Write(buf[:n]); werr != nil || c.Flush() != nil || err != nil {
				return
			}
		}
	})
	// Sends events for ever, each when the client has had the time to see the last.
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", i, i); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "content\n")
		w.Header().Set("X-Sum", "of the content")
	})
	mux.Handle("/ws", websocket.Server{Handler: func(c *websocket.Conn) {
		// Which answers the client's close frame.
		defer c.Close()
		c.MaxPayloadBytes = 16 << 20
		for {
			var message []byte
			if err := websocket.Message.Receive(c, &message); err != nil {
				return
			}
			// Text comes back as text.
			if err := websocket.Message.Send(c, string(message)); err != nil {
				return
			}
		}
	}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			connect(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// connect is a proxy's tunnel to where the request says.
func connect(w http.ResponseWriter, r *http.Request) {
	upstream, err := net.DialTimeout("tcp", r.Host, 10*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer upstream.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(upstream, buffered)
		_ = upstream.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(client, upstream)
		_ = client.(*net.TCPConn).CloseWrite()
	})
	both.Wait()
}
