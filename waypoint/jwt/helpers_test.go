package jwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// signer is one key of an issuer.
type signer struct {
	jose.Signer
	public  jose.JSONWebKey
	private any
}

// keyMaterial is made once: RSA keys take long.
var keyMaterial = sync.OnceValue(func() map[jose.SignatureAlgorithm]any {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[jose.SignatureAlgorithm]any{
		jose.RS256: rsaKey, jose.RS384: rsaKey, jose.RS512: rsaKey, jose.PS256: rsaKey, jose.PS384: rsaKey, jose.PS512: rsaKey,
		jose.ES256: p256, jose.ES384: p384, jose.ES512: p521, jose.EdDSA: ed,
	}
})

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, id string, options *jose.SignerOptions) signer {
	t.Helper()
	jwk := jose.JSONWebKey{Key: key, KeyID: id}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jwk}, options)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, jwk.Public(), key}
}

func fresh(t testing.TB, id string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, jose.ES256, key, id, nil)
}

// token signs claims, which are JSON.
func (s signer) token(t testing.TB, claims string) string {
	t.Helper()
	sig, err := s.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	out, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// jwks is the key set of signers.
func jwks(t testing.TB, signers ...signer) string {
	t.Helper()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, s := range signers {
		set.Keys = append(set.Keys, s.public)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// server is an issuer's server in memory.
type server struct {
	mu      sync.Mutex
	docs    map[string]jwt.Document
	delay   time.Duration
	fetches []string
}

func (s *server) set(url, body string, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs == nil {
		s.docs = map[string]jwt.Document{}
	}
	if body == "" {
		delete(s.docs, url)
	} else {
		s.docs[url] = jwt.Document{Body: []byte(body), MaxAge: age}
	}
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fetches)
}

func (s *server) Fetch(ctx context.Context, url string) (jwt.Document, error) {
	s.mu.Lock()
	s.fetches = append(s.fetches, url)
	delay, doc, ok := s.delay, s.docs[url], false
	_, ok = s.docs[url]
	s.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return jwt.Document{}, ctx.Err()
	}
	if !ok {
		return jwt.Document{}, errors.New("no such document")
	}
	return doc, nil
}

// keys returns Keys that end with the test.
func keys(t testing.TB, s *server) *jwt.Keys {
	k := jwt.NewKeys(jwt.Config{Fetcher: s})
	t.Cleanup(k.Close)
	return k
}

func compile(t testing.TB, k *jwt.Keys, rules ...*api.TokenRule) *jwt.Authentication {
	t.Helper()
	a, err := k.Compile(&api.Authentication{Namespace: "shop", Name: "tokens", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func checker(t testing.TB, rules ...*api.TokenRule) *jwt.Checker {
	t.Helper()
	a := compile(t, keys(t, &server{}), rules...)
	if w := a.Warnings(); w != nil {
		t.Fatal(w)
	}
	return jwt.NewChecker(a)
}

func inline(issuer, set string) *api.TokenRule {
	return &api.TokenRule{Issuer: issuer, Keys: &api.TokenRule_Jwks{Jwks: set}}
}

func remote(issuer, url string) *api.TokenRule {
	return &api.TokenRule{Issuer: issuer, Keys: &api.TokenRule_JwksUri{JwksUri: url}}
}

func bearer(token string) *message.Request {
	return &message.Request{
		Method: "GET", Scheme: "http", Authority: "books", Path: "/",
		Header: message.Header{{Name: "accept", Value: "*/*"}, {Name: "authorization", Value: "Bearer " + token}},
	}
}

// refused reports whether the error refuses with 401 for that reason.
func refused(err error, reason string) bool {
	r, ok := err.(*jwt.Refusal)
	return ok && r.Status == 401 && r.Challenge() != "" && strings.Contains(r.Reason, reason)
}
