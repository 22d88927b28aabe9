package xdsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// DialConfig says how to reach and trust the control plane.
type DialConfig struct {
	// Address is the control plane's host:port. Required.
	Address string
	// TLS yields the configuration of one attempt, so that a root certificate
	// replaced on disk counts from the next attempt on. internal/mtls makes
	// them. Required.
	TLS func() (*tls.Config, error)
	// TokenFile holds the bearer token; it is read again for every stream,
	// since tokens are rotated under a running proxy. Empty sends none.
	TokenFile string
	// ClusterID is sent as the clusterid header when it is not empty.
	ClusterID string
	// Headers are sent besides.
	Headers map[string]string
}

// Dialer returns a dial function for Config.Dial. Each call makes one attempt
// with TLS and HTTP/2 of at most 5 s and returns a connection that is ready.
func Dialer(cfg DialConfig) func(ctx context.Context) (*grpc.ClientConn, error) {
	return func(ctx context.Context) (*grpc.ClientConn, error) {
		tlsConfig, err := cfg.TLS()
		if err != nil {
			return nil, fmt.Errorf("TLS for %s: %w", cfg.Address, err)
		}
		dialer := &net.Dialer{Timeout: connectTimeout, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: tcpKeepaliveIdle, Interval: tcpKeepaliveInterval, Count: tcpKeepaliveCount,
		}}
		conn, err := grpc.NewClient("passthrough:///"+cfg.Address,
			grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
			grpc.WithPerRPCCredentials(TokenCredentials{File: cfg.TokenFile, ClusterID: cfg.ClusterID, Headers: cfg.Headers}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", addr)
			}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
			grpc.WithDisableServiceConfig(),
			grpc.WithNoProxy(),
		)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", cfg.Address, err)
		}
		if err := ready(ctx, conn); err != nil {
			conn.Close()
			return nil, fmt.Errorf("dial %s: %w", cfg.Address, err)
		}
		return conn, nil
	}
}

// errNotReady is returned when the first connection attempt failed. The cause
// comes with the first call, which gRPC fails with the transport's error.
var errNotReady = errors.New("no connection within the time allowed")

// ready waits until conn is connected or its first attempt has failed. A failed
// attempt is not an error here: the call that follows fails at once and says
// why, which the connectivity state does not.
func ready(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+time.Second)
	defer cancel()
	conn.Connect()
	for {
		state := conn.GetState()
		if state == connectivity.Ready || state == connectivity.TransientFailure {
			return nil
		}
		if !conn.WaitForStateChange(ctx, state) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return errNotReady
			}
			return ctx.Err()
		}
	}
}

// TokenCredentials are gRPC per-call credentials: the bearer token of a file,
// read anew for each call, and fixed headers. They refuse to travel without
// TLS. The zero value sends nothing.
type TokenCredentials struct {
	// File holds the token, surrounding white space ignored. Empty sends none.
	File string
	// ClusterID is the clusterid header; empty sends none.
	ClusterID string
	// Headers are sent besides; their names must be lower case.
	Headers map[string]string
}

var _ credentials.PerRPCCredentials = TokenCredentials{}

// GetRequestMetadata reads the token. It fails when the file cannot be read, is
// empty or is larger than any token.
func (t TokenCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	md := maps.Clone(t.Headers)
	if md == nil {
		md = make(map[string]string, 2)
	}
	if t.ClusterID != "" {
		md["clusterid"] = t.ClusterID
	}
	if t.File != "" {
		token, err := readToken(t.File)
		if err != nil {
			return nil, err
		}
		md["authorization"] = "Bearer " + token
	}
	return md, nil
}

// RequireTransportSecurity is always true: a bearer token is worth an identity.
func (TokenCredentials) RequireTransportSecurity() bool { return true }

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", fmt.Errorf("token: read %s: %w", path, err)
	}
	if len(b) > maxTokenBytes {
		return "", fmt.Errorf("token: %s is larger than %d bytes", path, maxTokenBytes)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("token: %s is empty", path)
	}
	if strings.ContainsAny(token, "\r\n\x00 ") {
		return "", fmt.Errorf("token: %s holds more than one word", path)
	}
	return token, nil
}
