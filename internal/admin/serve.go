package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Serve answers requests on lns with h until ctx ends, then closes them all and
// returns nil after the requests in flight, or shutdownTimeout. It owns lns.
func Serve(ctx context.Context, h http.Handler, lns ...net.Listener) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	errs := make(chan error, len(lns))
	var wg sync.WaitGroup
	for _, ln := range lns {
		wg.Go(func() { errs <- srv.Serve(ln) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-errs:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close()
	}
	wg.Wait()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ListenAndServe listens on addr and calls Serve. Its errors name the address.
func ListenAndServe(ctx context.Context, addr string, h http.Handler) error {
	lns, err := listen(addr)
	if err != nil {
		return err
	}
	return Serve(ctx, h, lns...)
}

// listen opens addr. The name localhost means both loopback addresses, because
// clients try ::1 first on many systems; a machine without IPv6 has only one.
func listen(addr string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(host, "localhost") {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		return []net.Listener{ln}, nil
	}
	v4, err4 := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err4 == nil {
		_, port, _ = net.SplitHostPort(v4.Addr().String()) // port 0: the same for both
	}
	v6, err6 := net.Listen("tcp6", net.JoinHostPort("::1", port))
	switch {
	case err4 == nil && err6 == nil:
		return []net.Listener{v4, v6}, nil
	case err4 == nil:
		return []net.Listener{v4}, nil
	case err6 == nil:
		return []net.Listener{v6}, nil
	}
	return nil, err4
}
