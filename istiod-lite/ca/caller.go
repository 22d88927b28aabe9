package ca

import (
	"context"
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/internal/nodetoken"
)

// Caller is who a request is from, as its token proves.
type Caller struct {
	Namespace, ServiceAccount string
	// PodName, PodUID and Node are empty when the token is bound to none.
	PodName, PodUID, Node string
	// Expiry is when the token stops being valid; zero means unknown.
	Expiry time.Time
}

// Account is the caller's service account, as namespace/name.
func (c Caller) Account() string { return c.Namespace + "/" + c.ServiceAccount }

// Authenticator checks bearer tokens: by signature on the local mesh, by
// TokenReview in Kubernetes.
type Authenticator interface {
	// Authenticate returns who the token's bearer is. An error means that the
	// token proves nothing, or, if it is ErrUnavailable, that this could not
	// be found out now.
	Authenticate(ctx context.Context, token string) (Caller, error)
}

// ErrUnavailable is wrapped by an Authenticator's errors that say nothing about
// the token.
var ErrUnavailable = errors.New("authentication is unavailable")

// TokenAuthenticator accepts the tokens of the local mesh.
type TokenAuthenticator struct{ Verifier nodetoken.Verifier }

// Authenticate implements Authenticator.
func (a TokenAuthenticator) Authenticate(_ context.Context, token string) (Caller, error) {
	claims, err := a.Verifier.Verify(token)
	if err != nil {
		return Caller{}, err
	}
	return Caller{
		Namespace:      claims.Namespace,
		ServiceAccount: claims.ServiceAccount,
		PodName:        claims.PodName,
		PodUID:         claims.PodUID,
		Node:           claims.Node,
		Expiry:         claims.Expiry,
	}, nil
}

type callerKey struct{}

// CallerFromContext returns the caller that an interceptor has authenticated.
func CallerFromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// ContextWithCaller returns ctx with an authenticated caller, as the interceptors
// hand it to services.
func ContextWithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}
