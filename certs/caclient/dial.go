package caclient

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// connectTimeout, keepaliveInterval and keepaliveTimeout are a ztunnel's
	// towards its control plane.
	connectTimeout    = 5 * time.Second
	keepaliveInterval = 30 * time.Second
	keepaliveTimeout  = 10 * time.Second
	// reconnectMin and reconnectMax space out attempts to reach an authority
	// that is down. gRPC's own maximum is 2 minutes, for which pods that start
	// after its return would wait in vain.
	reconnectMin, reconnectMax = 100 * time.Millisecond, 5 * time.Second
)

// Dial returns a connection to the authority at target, a host:port or a gRPC
// target name, which the caller closes. It does not block: the connection is
// made, and made again after a loss, when requests need it.
func Dial(target string, cfg *tls.Config) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: connectTimeout,
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: .2, MaxDelay: reconnectMax},
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}))
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", target, err)
	}
	return conn, nil
}
