package ca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientauthenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// DefaultAudience is for whom tokens must be made, as in Istio.
const DefaultAudience = "istio-ca"

// What a review tells of a token that is bound to a pod (Kubernetes,
// "Service accounts: bound tokens").
const (
	accountPrefix = "system:serviceaccount:"
	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
)

// ReviewConfig is what a [ReviewAuthenticator] needs. Reviews must be set.
type ReviewConfig struct {
	// Reviews asks the API server.
	Reviews clientauthenticationv1.TokenReviewInterface
	// Audiences are those of which a token must have one; empty means
	// DefaultAudience.
	Audiences []string
	// Pods tells a pod's node where the API server does not (before
	// Kubernetes 1.29); nil leaves it empty.
	Pods Pods
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ReviewAuthenticator has the API server say whose a token is, and believes the
// answer for a short while. It is safe for concurrent use.
type ReviewAuthenticator struct {
	cfg   ReviewConfig
	slots chan struct{}
	cache *reviewCache
}

// NewReviewAuthenticator checks cfg and returns an authenticator.
func NewReviewAuthenticator(cfg ReviewConfig) (*ReviewAuthenticator, error) {
	if cfg.Reviews == nil {
		return nil, errors.New("token reviews: no client")
	}
	if len(cfg.Audiences) == 0 {
		cfg.Audiences = []string{DefaultAudience}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &ReviewAuthenticator{cfg: cfg, slots: make(chan struct{}, maxReviewsUnderWay), cache: newReviewCache(maxReviews)}, nil
}

// Authenticate implements [Authenticator]. Callers with the same token share
// one question.
func (a *ReviewAuthenticator) Authenticate(ctx context.Context, token string) (Caller, error) {
	claims, err := peek(token)
	if err != nil {
		return Caller{}, err
	}
	key := sha256.Sum256([]byte(token))
	for {
		now := a.cfg.Now()
		if !claims.expiry.IsZero() && !now.Before(claims.expiry) {
			return Caller{}, fmt.Errorf("the token expired at %s", claims.expiry.UTC().Format(time.RFC3339))
		}
		entry, first := a.cache.entry(key, now)
		if first {
			caller, err := a.review(ctx, token)
			caller.Expiry = claims.expiry
			a.cache.settle(key, entry, caller, err, a.until(claims, err))
			return a.place(caller), err
		}
		select {
		case <-entry.done:
			if !errors.Is(entry.err, ErrUnavailable) {
				return a.place(entry.caller), entry.err
			}
			// Who asked first may only have been in a hurry; ask for oneself.
			if ctx.Err() != nil {
				return Caller{}, entry.err
			}
		case <-ctx.Done():
			return Caller{}, fmt.Errorf("%w: no answer about the token yet: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// until is the end of an answer's life, never after the token's own.
func (a *ReviewAuthenticator) until(claims peeked, err error) time.Time {
	if err != nil {
		return a.cfg.Now().Add(refusedReviewTTL)
	}
	end := a.cfg.Now().Add(reviewTTL)
	if !claims.expiry.IsZero() && claims.expiry.Before(end) {
		return claims.expiry
	}
	return end
}

// place adds the node of the caller's pod where the token does not tell it. It
// is not kept with the answer, since the pod may become known later.
func (a *ReviewAuthenticator) place(caller Caller) Caller {
	if caller.Node != "" || caller.PodName == "" || a.cfg.Pods == nil {
		return caller
	}
	if pod, ok := a.cfg.Pods.Pod(caller.Namespace, caller.PodName); ok && pod.UID == caller.PodUID {
		caller.Node = pod.Node
	}
	return caller
}

// review asks the API server.
func (a *ReviewAuthenticator) review(ctx context.Context, token string) (Caller, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return Caller{}, fmt.Errorf("%w: %d token reviews are under way: %w", ErrUnavailable, maxReviewsUnderWay, context.Cause(ctx))
	}
	review, err := a.cfg.Reviews.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: a.cfg.Audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return Caller{}, fmt.Errorf("%w: token review: %w", ErrUnavailable, err)
	}
	return callerOf(review.Status, a.cfg.Audiences)
}

func callerOf(status authenticationv1.TokenReviewStatus, audiences []string) (Caller, error) {
	switch {
	case !status.Authenticated:
		return Caller{}, fmt.Errorf("the API server does not know the token: %s", cmp.Or(status.Error, "no reason given"))
	// An API server that does not know of audiences answers without them.
	case !slices.ContainsFunc(status.Audiences, func(s string) bool { return slices.Contains(audiences, s) }):
		return Caller{}, fmt.Errorf("the token is not for the audience %s", strings.Join(audiences, " or "))
	}
	ns, name, ok := strings.Cut(strings.TrimPrefix(status.User.Username, accountPrefix), ":")
	if !ok || !strings.HasPrefix(status.User.Username, accountPrefix) || ns == "" || name == "" {
		return Caller{}, fmt.Errorf("the token is of %q, which is no service account", status.User.Username)
	}
	extra := func(key string) string {
		if v := status.User.Extra[key]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	return Caller{Namespace: ns, ServiceAccount: name, PodName: extra(extraPodName), PodUID: extra(extraPodUID), Node: extra(extraNodeName)}, nil
}

// peeked is what a token says of itself, unproven.
type peeked struct{ expiry time.Time }

// peek takes apart a token (RFC 7519) without checking it. What is no token at
// all is refused here, at no cost to the API server.
func peek(token string) (peeked, error) {
	if len(token) > maxTokenBytes {
		return peeked{}, fmt.Errorf("token of %d bytes, at most %d are read", len(token), maxTokenBytes)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return peeked{}, errors.New("the bearer token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return peeked{}, errors.New("the bearer token is no JWT: its payload is not base64")
	}
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return peeked{}, errors.New("the bearer token is no JWT: its payload is not JSON")
	}
	const year10000 = 253402300800
	if claims.Expiry <= 0 || claims.Expiry >= year10000 {
		return peeked{}, nil
	}
	return peeked{expiry: time.Unix(int64(claims.Expiry), 0)}, nil
}
