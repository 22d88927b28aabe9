package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// serverConfig is what the server's flags say.
type serverConfig struct {
	// ports speak HTTP, those of tls within TLS; 0 is any free port.
	ports, tls, grpc, tcp []int
	// certificate and key are files in PEM; needed with tls alone.
	certificate, key string
	// address is where all of them listen; "" is everywhere.
	address string
	// hostname is what the server says that it is.
	hostname string
}

func runServer(ctx context.Context, args []string, _, stderr io.Writer) error {
	var c serverConfig
	flags := pflag.NewFlagSet("echo", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntSliceVar(&c.ports, "port", []int{8080}, "ports of HTTP/1.1 and HTTP/2")
	flags.IntSliceVar(&c.tls, "tls", nil, "which of --port speak TLS")
	flags.IntSliceVar(&c.grpc, "grpc", []int{7070}, "ports of gRPC")
	flags.IntSliceVar(&c.tcp, "tcp", []int{9090}, "ports of bytes")
	flags.StringVar(&c.certificate, "crt", "", "certificate of --tls, PEM")
	flags.StringVar(&c.key, "key", "", "key of --tls, PEM")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	c.hostname = hostname
	s, err := listen(c)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "echo: %s serves HTTP on %v, gRPC on %v, bytes on %v\n", c.hostname, c.ports, c.grpc, c.tcp)
	return s.serve(ctx)
}

// server is a listening server; serve must be called once.
type server struct {
	config                serverConfig
	http                  []*http.Server
	httpListeners, gl, tl []net.Listener
	grpc                  *grpc.Server
}

// listen opens all ports, or none.
func listen(c serverConfig) (_ *server, err error) {
	s := &server{config: c, grpc: grpc.NewServer()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var identity tls.Certificate
	if len(c.tls) > 0 {
		for _, port := range c.tls {
			if !slices.Contains(c.ports, port) {
				return nil, fmt.Errorf("--tls=%d is no --port", port)
			}
		}
		if identity, err = tls.LoadX509KeyPair(c.certificate, c.key); err != nil {
			return nil, fmt.Errorf("--crt, --key: %w", err)
		}
	}
	open := func(port int) (net.Listener, error) {
		return net.Listen("tcp", net.JoinHostPort(c.address, strconv.Itoa(port)))
	}
	for _, port := range c.ports {
		l, err := open(port)
		if err != nil {
			return nil, fmt.Errorf("--port: %w", err)
		}
		h := &http.Server{Handler: s.handler(portOf(l)), ReadHeaderTimeout: headTimeout, Protocols: new(http.Protocols)}
		h.Protocols.SetHTTP1(true)
		h.Protocols.SetUnencryptedHTTP2(true)
		if slices.Contains(c.tls, port) {
			h.Protocols.SetUnencryptedHTTP2(false)
			h.Protocols.SetHTTP2(true)
			h.TLSConfig = &tls.Config{Certificates: []tls.Certificate{identity}, MinVersion: tls.VersionTLS12}
		}
		s.http, s.httpListeners = append(s.http, h), append(s.httpListeners, l)
	}
	for _, port := range c.grpc {
		l, err := open(port)
		if err != nil {
			return nil, fmt.Errorf("--grpc: %w", err)
		}
		s.gl = append(s.gl, l)
	}
	for _, port := range c.tcp {
		l, err := open(port)
		if err != nil {
			return nil, fmt.Errorf("--tcp: %w", err)
		}
		s.tl = append(s.tl, l)
	}
	s.grpc.RegisterService(&echoDesc, echoer(s))
	return s, nil
}

func (s *server) close() {
	for _, l := range slices.Concat(s.httpListeners, s.gl, s.tl) {
		l.Close()
	}
}

// serve blocks until ctx ends, then lets what is under way end, for drainTimeout.
func (s *server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	begin := func(serve func() error) {
		work.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, grpc.ErrServerStopped) {
				cancel(err)
			}
		})
	}
	for i, h := range s.http {
		if h.TLSConfig != nil {
			begin(func() error { return h.ServeTLS(s.httpListeners[i], "", "") })
		} else {
			begin(func() error { return h.Serve(s.httpListeners[i]) })
		}
	}
	for _, l := range s.gl {
		begin(func() error { return s.grpc.Serve(l) })
	}
	streams := &tcpStreams{conns: map[net.Conn]struct{}{}}
	for _, l := range s.tl {
		begin(func() error { return s.serveBytes(l, streams) })
	}
	<-ctx.Done()
	drain, end := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer end()
	var ending sync.WaitGroup
	for _, h := range s.http {
		ending.Go(func() {
			if h.Shutdown(drain) != nil {
				h.Close()
			}
		})
	}
	ending.Go(func() {
		stop := context.AfterFunc(drain, s.grpc.Stop)
		defer stop()
		s.grpc.GracefulStop()
	})
	s.close()
	streams.close()
	ending.Wait()
	work.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// handler answers every request with what it saw of it.
func (s *server) handler(port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The whole request is read: a client may send before it reads.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		var f fields
		f.add(fieldServicePort, port)
		f.add(fieldHost, r.Host)
		f.add(fieldURL, r.URL.RequestURI())
		f.add(fieldMethod, r.Method)
		f.add(fieldProto, r.Proto)
		f.add(fieldIP, host(r.RemoteAddr))
		if r.TLS != nil {
			f.add(fieldALPN, r.TLS.NegotiatedProtocol)
		}
		f.addHeader(fieldRequestHeader, r.Header)
		f.add(fieldHostname, s.config.hostname)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(f.Len()))
		io.WriteString(w, f.String())
	})
}

// echo implements echoer.
func (s *server) echo(ctx context.Context, message string) (string, error) {
	var f fields
	f.add(fieldStatusCode, "200")
	md, _ := metadata.FromIncomingContext(ctx)
	h := http.Header{}
	for name, values := range md {
		if name == ":authority" {
			f.add(fieldHost, values[0])
			continue
		}
		for _, v := range values {
			h.Add(name, v)
		}
	}
	if p, ok := peer.FromContext(ctx); ok {
		f.add(fieldIP, host(p.Addr.String()))
		if _, port, err := net.SplitHostPort(p.LocalAddr.String()); err == nil {
			f.add(fieldServicePort, port)
		}
	}
	f.add(fieldProto, "GRPC")
	f.addHeader(fieldRequestHeader, h)
	f.add(fieldEcho, message)
	f.add(fieldHostname, s.config.hostname)
	return f.String(), nil
}

// tcpStreams are the connections that carry bytes.
type tcpStreams struct {
	work sync.WaitGroup
	mu   sync.Mutex
	// conns is nil once close was called.
	conns map[net.Conn]struct{}
}

// begin returns false when the server ends.
func (t *tcpStreams) begin(c net.Conn, serve func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		return false
	}
	t.conns[c] = struct{}{}
	t.work.Go(func() {
		serve()
		c.Close()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, c)
	})
	return true
}

// close cuts all connections and waits for them.
func (t *tcpStreams) close() {
	t.mu.Lock()
	for c := range t.conns {
		c.Close()
	}
	t.conns = nil
	t.mu.Unlock()
	t.work.Wait()
}

func (s *server) serveBytes(l net.Listener, streams *tcpStreams) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if !streams.begin(c, func() { s.stream(c, portOf(l)) }) {
			c.Close()
		}
	}
}

// stream answers the first bytes with the fields and sends all of them back.
func (s *server) stream(c net.Conn, port string) {
	_ = c.SetReadDeadline(time.Now().Add(headTimeout))
	first := make([]byte, tcpFirstBytes)
	n, err := c.Read(first)
	if err != nil {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	var f fields
	f.add(fieldStatusCode, "200")
	f.add(fieldServicePort, port)
	f.add(fieldProto, "TCP")
	f.add(fieldIP, host(c.RemoteAddr().String()))
	f.add(fieldHostname, s.config.hostname)
	if _, err := io.WriteString(c, f.String()+fieldEcho+"="); err != nil {
		return
	}
	if _, err := c.Write(first[:n]); err != nil {
		return
	}
	_, _ = io.Copy(c, c)
}
