package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
)

// calls answers unary calls with as much as they ask for.
type calls struct {
	grpc_testing.UnimplementedBenchmarkServiceServer
}

// UnaryCall implements grpc_testing.BenchmarkServiceServer.
func (calls) UnaryCall(_ context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, r.GetResponseSize())}}, nil
}

// serveGRPC is the application of gRPC, until ctx ends.
func serveGRPC(ctx context.Context, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	grpc_testing.RegisterBenchmarkServiceServer(s, calls{})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	return s.Serve(ln)
}

// idleConns is how many connections to an application are kept: the 2 of net/http's
// default would have it dial for most of the requests.
const idleConns = 256

// reverseProxies runs net/http's reverse proxy until ctx ends, for each three arguments
// one: where it listens, where the application is, and what that speaks.
func reverseProxies(ctx context.Context, args []string) error {
	var wg sync.WaitGroup
	errs := make([]error, len(args)/3)
	for i := range errs {
		listen, to, protocol := args[3*i], args[3*i+1], args[3*i+2]
		target := &url.URL{Scheme: "http", Host: to}
		transport := &http.Transport{MaxIdleConnsPerHost: idleConns, DisableCompression: true, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(protocol == "http1")
		transport.Protocols.SetUnencryptedHTTP2(protocol == "http2")
		s := &http.Server{Addr: listen, Protocols: new(http.Protocols), Handler: &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
			Transport: transport,
		}}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		stop := context.AfterFunc(ctx, func() { _ = s.Close() })
		defer stop()
		wg.Go(func() { errs[i] = s.ListenAndServe() })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}
