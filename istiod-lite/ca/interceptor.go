package ca

import (
	"context"
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// InterceptorConfig is what [Interceptors] need. Only Authenticator must be set.
type InterceptorConfig struct {
	Authenticator Authenticator
	Logger        *zap.Logger           // may be nil
	Registerer    prometheus.Registerer // may be nil
}

// Interceptors authenticate every call of a gRPC server before its service sees
// it; the service finds the caller with [CallerFromContext].
type Interceptors struct {
	cfg      InterceptorConfig
	failures prometheus.Counter
}

// NewInterceptors returns interceptors that let through whom cfg.Authenticator
// knows.
func NewInterceptors(cfg InterceptorConfig) (*Interceptors, error) {
	if cfg.Authenticator == nil {
		return nil, errors.New("interceptors: no authenticator")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	i := &Interceptors{cfg: cfg, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "citadel_server_authentication_failure_count",
		Help: "Calls of the control plane whose caller could not be authenticated.",
	})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(i.failures); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (i *Interceptors) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := i.authenticate(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// Stream is a grpc.StreamServerInterceptor. The caller is authenticated when the
// stream begins; Caller.Expiry tells until when that holds.
func (i *Interceptors) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := i.authenticate(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, &authenticatedStream{ServerStream: stream, ctx: ctx})
}

// authenticatedStream carries the context with the caller: gRPC offers no other
// way to hand a stream's handler a value.
type authenticatedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authenticatedStream) Context() context.Context { return s.ctx }

func (i *Interceptors) authenticate(ctx context.Context, method string) (context.Context, error) {
	token, err := bearerToken(ctx)
	var caller Caller
	if err == nil {
		checkCtx, cancel := context.WithTimeout(ctx, authenticationTimeout)
		caller, err = i.cfg.Authenticator.Authenticate(checkCtx, token)
		cancel()
	}
	if err == nil {
		return ContextWithCaller(ctx, caller), nil
	}
	i.failures.Inc()
	i.cfg.Logger.Info("caller not authenticated",
		zap.String("method", method), zap.String("peer", peerAddress(ctx)), zap.Error(err))
	if errors.Is(err, ErrUnavailable) {
		return nil, status.Error(codes.Unavailable, "authentication is unavailable, try again")
	}
	return nil, status.Error(codes.Unauthenticated, "the request is not authenticated")
}

var errNoToken = errors.New("no bearer token")

// bearerToken returns the one bearer token of the call (RFC 6750, 2.1; the
// scheme's case does not matter, RFC 9110, 11.1).
func bearerToken(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) == 0 {
		return "", errNoToken
	}
	if len(values) > 1 {
		return "", errors.New("more than one authorization header")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}

func peerAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
