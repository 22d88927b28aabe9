package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// clientConfig is what the client's flags say.
type clientConfig struct {
	method  string
	header  http.Header
	message string
	count   int
	timeout time.Duration
	http2   bool
	// fresh has every request on a connection of its own.
	fresh bool
}

func runClient(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := clientConfig{header: http.Header{}}
	var lines []string
	flags := pflag.NewFlagSet("client", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.method, "method", http.MethodGet, "method of HTTP requests")
	flags.StringArrayVarP(&lines, "header", "H", nil, "a field of the request, NAME:VALUE; repeatable")
	flags.StringVar(&c.message, "msg", "HelloWorld", "what gRPC and TCP servers shall echo")
	flags.IntVar(&c.count, "count", 1, "how many requests")
	flags.DurationVar(&c.timeout, "timeout", 15*time.Second, "how long each may take")
	flags.BoolVar(&c.http2, "http2", false, "HTTP/2, without TLS by prior knowledge")
	flags.BoolVar(&c.fresh, "new-connection-per-request", false, "a connection for each request")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("needs one argument, the URL")
	}
	if c.count < 1 || c.count > maxCount {
		return fmt.Errorf("--count=%d is not between 1 and %d", c.count, maxCount)
	}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return fmt.Errorf("--header %q is not NAME:VALUE", line)
		}
		c.header.Add(name, value)
	}
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		return err
	}
	if target.Host == "" {
		return fmt.Errorf("URL %q names no host", target)
	}
	send, done, err := c.sender(target)
	if err != nil {
		return err
	}
	defer done()
	return c.batch(ctx, send, stdout)
}

// sender returns what sends one request and tells what came back.
func (c *clientConfig) sender(target *url.URL) (send func(context.Context) (*fields, error), done func(), err error) {
	switch target.Scheme {
	case "http", "https":
		send, done = c.http(target)
	case "grpc":
		return c.grpc(target)
	case "tcp":
		send, done = c.tcp(target), func() {}
	default:
		return nil, nil, fmt.Errorf("URL %q: its scheme is not http, https, grpc or tcp", target)
	}
	return send, done, nil
}

// batch sends all requests, several at once, and prints the responses in order.
func (c *clientConfig) batch(ctx context.Context, send func(context.Context) (*fields, error), out io.Writer) error {
	blocks, errs := make([]*fields, c.count), make([]error, c.count)
	var work sync.WaitGroup
	slots := make(chan struct{}, clientStreams)
	for i := range c.count {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, c.timeout)
			defer cancel()
			blocks[i], errs[i] = send(ctx)
		})
	}
	work.Wait()
	failed, first := 0, error(nil)
	for i, block := range blocks {
		if errs[i] != nil {
			if failed++; first == nil {
				first = errs[i]
			}
			continue
		}
		for line := range strings.Lines(block.String()) {
			// The server's own lines are told from the client's.
			if strings.HasPrefix(line, "\t") {
				fmt.Fprintf(out, "[%d body] %s", i, line[1:])
			} else {
				fmt.Fprintf(out, "[%d] %s", i, line)
			}
		}
		fmt.Fprintln(out)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", failed, c.count, first)
	}
	return nil
}

// body adds the server's lines, each behind a tab.
func (f *fields) body(content string) {
	for line := range strings.SplitSeq(strings.TrimRight(content, "\n"), "\n") {
		if line = strings.TrimRight(line, "\r"); line != "" {
			fmt.Fprintf(f, "\t%s\n", line)
		}
	}
}

func (c *clientConfig) http(target *url.URL) (func(context.Context) (*fields, error), func()) {
	transport := &http.Transport{
		// What the server sees is what --header said.
		DisableCompression:  true,
		DisableKeepAlives:   c.fresh,
		MaxIdleConnsPerHost: clientStreams,
		// The servers' certificates are nobody's.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		Protocols:       new(http.Protocols),
	}
	if c.http2 {
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context) (*fields, error) {
		req, err := http.NewRequestWithContext(ctx, c.method, target.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header = c.header.Clone()
		if h := req.Header.Get("Host"); h != "" {
			req.Host = h
			req.Header.Del("Host")
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		content, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
		if err != nil {
			return nil, err
		}
		f := &fields{}
		f.add(fieldRequestURL, target.String())
		f.addHeader(fieldSentHeader, c.header)
		f.add(fieldStatusCode, fmt.Sprint(resp.StatusCode))
		f.addHeader(fieldResponseHeader, resp.Header)
		f.body(string(content))
		return f, nil
	}, transport.CloseIdleConnections
}

func (c *clientConfig) grpc(target *url.URL) (func(context.Context) (*fields, error), func(), error) {
	conn, err := grpc.NewClient("passthrough:///"+target.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	var pairs []string
	for name, values := range c.header {
		for _, v := range values {
			pairs = append(pairs, strings.ToLower(name), v)
		}
	}
	return func(ctx context.Context) (*fields, error) {
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
		out, head := new(wrapperspb.StringValue), metadata.MD{}
		if err := conn.Invoke(ctx, echoMethod, wrapperspb.String(c.message), out, grpc.Header(&head)); err != nil {
			return nil, err
		}
		f := &fields{}
		f.add(fieldRequestURL, target.String())
		f.addHeader(fieldSentHeader, c.header)
		f.addHeader(fieldResponseHeader, http.Header(head))
		f.body(out.GetValue())
		return f, nil
	}, func() { conn.Close() }, nil
}

func (c *clientConfig) tcp(target *url.URL) func(context.Context) (*fields, error) {
	return func(ctx context.Context) (*fields, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", target.Host)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if _, err := io.WriteString(conn, c.message+"\n"); err != nil {
			return nil, err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return nil, err
		}
		content, err := io.ReadAll(io.LimitReader(conn, maxResponse))
		if err != nil {
			return nil, err
		}
		if len(content) == 0 {
			return nil, errors.New("the server closed without a word")
		}
		f := &fields{}
		f.add(fieldRequestURL, target.String())
		f.body(string(content))
		return f, nil
	}
}
