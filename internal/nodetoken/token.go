package nodetoken

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is the "iss" of every token made here.
const Issuer = "tulle.local"

// DefaultAudience is the "aud" that the control plane expects, as in Istio.
const DefaultAudience = "istio-ca"

const subjectPrefix = "system:serviceaccount:"

// Claims is what a token says of its bearer.
type Claims struct {
	Namespace, ServiceAccount string
	PodName, PodUID           string
	Node                      string
	// Audience lists who may accept the token. Minting with none means
	// DefaultAudience.
	Audience []string
	// Expiry is set by Mint and Verify.
	Expiry time.Time
}

// wireClaims is the JSON form: Kubernetes's bound service account token.
type wireClaims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace      string    `json:"namespace"`
		Node           objectRef `json:"node"`
		Pod            objectRef `json:"pod"`
		ServiceAccount objectRef `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type objectRef struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Mint makes a token for c that expires after ttl, which must be positive and
// at most MaxTTL.
func Mint(key *Key, c Claims, ttl time.Duration) (string, error) {
	if ttl <= 0 || ttl > MaxTTL {
		return "", fmt.Errorf("mint node token: lifetime %v, want more than 0 and at most %v", ttl, MaxTTL)
	}
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("mint node token: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.public.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("mint node token: %w", err)
	}
	audience := c.Audience
	if len(audience) == 0 {
		audience = []string{DefaultAudience}
	}
	now := time.Now()
	w := wireClaims{Claims: jwt.Claims{
		Issuer:   Issuer,
		Subject:  c.subject(),
		Audience: audience,
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(ttl)),
	}}
	w.Kubernetes.Namespace = c.Namespace
	w.Kubernetes.Node.Name = c.Node
	w.Kubernetes.Pod = objectRef{Name: c.PodName, UID: c.PodUID}
	w.Kubernetes.ServiceAccount.Name = c.ServiceAccount
	token, err := jwt.Signed(signer).Claims(w).Serialize()
	if err != nil {
		return "", fmt.Errorf("mint node token: %w", err)
	}
	if len(token) > MaxTokenBytes {
		return "", fmt.Errorf("mint node token: %d bytes, at most %d are accepted", len(token), MaxTokenBytes)
	}
	return token, nil
}

func (c Claims) subject() string {
	return subjectPrefix + c.Namespace + ":" + c.ServiceAccount
}

func (c Claims) validate() error {
	for _, f := range []struct{ name, value string }{
		{"namespace", c.Namespace}, {"service account", c.ServiceAccount},
	} {
		if f.value == "" || strings.ContainsAny(f.value, ":/ ") {
			return fmt.Errorf("%s %q is not a name", f.name, f.value)
		}
	}
	return nil
}

// Error is the refusal of a token: which check failed.
type Error struct {
	Reason string // one of a few fixed texts, fit for a metric's label
	Err    error  // may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "node token refused: " + e.Reason
	}
	return "node token refused: " + e.Reason + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Verifier checks tokens. It is immutable and safe for concurrent use.
type Verifier struct {
	// Keys are those whose tokens are accepted. None: no token is.
	Keys []*PublicKey
	// Audience must be among a token's; empty means DefaultAudience.
	Audience string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verify checks a token's signature, issuer, audience and times, and returns
// what it says. Errors are of type *Error.
func (v Verifier) Verify(token string) (Claims, error) {
	if len(token) > MaxTokenBytes {
		return Claims{}, &Error{Reason: "too large"}
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, &Error{Reason: "malformed", Err: err}
	}
	if len(parsed.Headers) != 1 {
		return Claims{}, &Error{Reason: "malformed", Err: errors.New("not exactly one signature")}
	}
	i := slices.IndexFunc(v.Keys, func(k *PublicKey) bool { return k.id == parsed.Headers[0].KeyID })
	if i < 0 {
		return Claims{}, &Error{Reason: "unknown key"}
	}
	if err := parsed.Claims(v.Keys[i].key); err != nil {
		return Claims{}, &Error{Reason: "bad signature", Err: err}
	}
	var w wireClaims
	// The signature is good: this is only the decoding.
	if err := parsed.UnsafeClaimsWithoutVerification(&w); err != nil {
		return Claims{}, &Error{Reason: "malformed", Err: err}
	}
	return v.check(&w)
}

func (v Verifier) check(w *wireClaims) (Claims, error) {
	audience := v.Audience
	if audience == "" {
		audience = DefaultAudience
	}
	now := time.Now()
	if v.Now != nil {
		now = v.Now()
	}
	switch {
	case w.Issuer != Issuer:
		return Claims{}, &Error{Reason: "wrong issuer"}
	case !w.Audience.Contains(audience):
		return Claims{}, &Error{Reason: "wrong audience", Err: fmt.Errorf("it is for %.200q, want %q", []string(w.Audience), audience)}
	case w.Expiry == nil || w.IssuedAt == nil:
		return Claims{}, &Error{Reason: "malformed", Err: errors.New("it lacks exp or iat")}
	case w.Expiry.Time().Sub(w.IssuedAt.Time()) > MaxTTL:
		return Claims{}, &Error{Reason: "lives too long"}
	case !now.Before(w.Expiry.Time().Add(Leeway)):
		return Claims{}, &Error{Reason: "expired", Err: fmt.Errorf("at %s", w.Expiry.Time().UTC().Format(time.RFC3339))}
	case now.Add(Leeway).Before(w.IssuedAt.Time()),
		w.NotBefore != nil && now.Add(Leeway).Before(w.NotBefore.Time()):
		return Claims{}, &Error{Reason: "not valid yet"}
	}
	c := Claims{
		Namespace:      w.Kubernetes.Namespace,
		ServiceAccount: w.Kubernetes.ServiceAccount.Name,
		PodName:        w.Kubernetes.Pod.Name,
		PodUID:         w.Kubernetes.Pod.UID,
		Node:           w.Kubernetes.Node.Name,
		Audience:       w.Audience,
		Expiry:         w.Expiry.Time(),
	}
	if err := c.validate(); err != nil {
		return Claims{}, &Error{Reason: "malformed", Err: err}
	}
	if w.Subject != c.subject() {
		return Claims{}, &Error{Reason: "malformed", Err: fmt.Errorf("subject %.200q is not %q", w.Subject, c.subject())}
	}
	return c, nil
}
