package nodetoken_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tulle-mesh/tulle/internal/nodetoken"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *nodetoken.Key {
	t.Helper()
	key, err := nodetoken.GenerateKey()
	must(t, err)
	return key
}

var ztunnel = nodetoken.Claims{
	Namespace: "istio-system", ServiceAccount: "ztunnel",
	PodName: "ztunnel-n1", PodUID: "2b7e", Node: "n1",
}

func verifier(keys ...*nodetoken.Key) nodetoken.Verifier {
	v := nodetoken.Verifier{}
	for _, k := range keys {
		v.Keys = append(v.Keys, k.Public())
	}
	return v
}

func TestAMintedTokenSaysWhoItsBearerIs(t *testing.T) {
	old, key := newKey(t), newKey(t)
	token, err := nodetoken.Mint(key, ztunnel, time.Hour)
	must(t, err)
	got, err := verifier(old, key).Verify(token)
	must(t, err)
	if left := time.Until(got.Expiry); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("expires in %v, want an hour", left)
	}
	if !slices.Equal(got.Audience, []string{"istio-ca"}) {
		t.Errorf("audience %v", got.Audience)
	}
	if got.Namespace != ztunnel.Namespace || got.ServiceAccount != ztunnel.ServiceAccount ||
		got.PodName != ztunnel.PodName || got.PodUID != ztunnel.PodUID || got.Node != ztunnel.Node {
		t.Errorf("claims %+v, want %+v", got, ztunnel)
	}
}

func TestATokenIsShapedLikeKubernetes(t *testing.T) {
	key := newKey(t)
	token, err := nodetoken.Mint(key, ztunnel, time.Hour)
	must(t, err)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	must(t, err)
	if want := `{"alg":"ES256","kid":"` + key.Public().ID() + `","typ":"JWT"}`; string(header) != want {
		t.Errorf("header %s, want %s", header, want)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	for _, want := range []string{
		`"sub":"system:serviceaccount:istio-system:ztunnel"`, `"aud":"istio-ca"`, `"exp":`, `"iat":`, `"iss":"tulle.local"`,
		`"kubernetes.io":{"namespace":"istio-system","node":{"name":"n1"},"pod":{"name":"ztunnel-n1","uid":"2b7e"},"serviceaccount":{"name":"ztunnel"}}`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("claims %s lack %s", body, want)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	key := newKey(t)
	for name, mint := range map[string]func() (string, error){
		"no lifetime":     func() (string, error) { return nodetoken.Mint(key, ztunnel, 0) },
		"too long a life": func() (string, error) { return nodetoken.Mint(key, ztunnel, nodetoken.MaxTTL+1) },
		"no namespace":    func() (string, error) { return nodetoken.Mint(key, nodetoken.Claims{ServiceAccount: "a"}, time.Hour) },
		"no account":      func() (string, error) { return nodetoken.Mint(key, nodetoken.Claims{Namespace: "a"}, time.Hour) },
		"a colon in a name": func() (string, error) {
			return nodetoken.Mint(key, nodetoken.Claims{Namespace: "a:b", ServiceAccount: "c"}, time.Hour)
		},
		"an endless audience": func() (string, error) {
			c := ztunnel
			c.Audience = []string{strings.Repeat("a", nodetoken.MaxTokenBytes)}
			return nodetoken.Mint(key, c, time.Hour)
		},
	} {
		if _, err := mint(); err == nil {
			t.Errorf("%s: minted", name)
		}
	}
}

// forge signs whatever claims with whatever key and algorithm.
func forge(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	must(t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(t, err)
	return token
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestTokensThatAreRefused(t *testing.T) {
	ours := newKey(t)
	privatePEM, err := ours.MarshalPrivatePEM()
	must(t, err)
	block, _ := pem.Decode(privatePEM)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	private := parsed.(*ecdsa.PrivateKey)
	publicPEM, err := ours.PublicPEM()
	must(t, err)
	kid := ours.Public().ID()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)

	now := time.Now()
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{
			"iss": nodetoken.Issuer, "sub": "system:serviceaccount:a:b", "aud": []string{"istio-ca"},
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			"kubernetes.io": map[string]any{"namespace": "a", "serviceaccount": map[string]any{"name": "b"}, "node": map[string]any{"name": "n"}},
		}
		if change != nil {
			change(c)
		}
		return c
	}
	set := func(name string, value any) func(map[string]any) { return func(c map[string]any) { c[name] = value } }
	unset := func(name string) func(map[string]any) { return func(c map[string]any) { delete(c, name) } }
	good := forge(t, jose.ES256, private, kid, claims(nil))
	if _, err := verifier(ours).Verify(good); err != nil {
		t.Fatalf("the unchanged token: %v", err)
	}
	goodParts := strings.Split(good, ".")

	for _, tt := range []struct{ name, token, reason string }{
		{"empty", "", "malformed"},
		{"text", "hello", "malformed"},
		{"two dots", "..", "malformed"},
		{"too large", good + strings.Repeat("a", nodetoken.MaxTokenBytes), "too large"},
		{"no signature", goodParts[0] + "." + goodParts[1] + ".", "bad signature"},
		{"algorithm none", encode(`{"alg":"none","kid":"`+kid+`"}`) + "." + goodParts[1] + ".", "malformed"},
		{"HMAC with the public key as secret", forge(t, jose.HS256, publicPEM, kid, claims(nil)), "malformed"},
		{"RSA", forge(t, jose.RS256, rsaKey, kid, claims(nil)), "malformed"},
		{"ES384", forge(t, jose.ES384, p384, kid, claims(nil)), "malformed"},
		{"unknown key", forge(t, jose.ES256, other, "other", claims(nil)), "unknown key"},
		{"no key named", forge(t, jose.ES256, private, "", claims(nil)), "unknown key"},
		{"another key under our name", forge(t, jose.ES256, other, kid, claims(nil)), "bad signature"},
		{"a key brought along", withEmbeddedKey(t, other, kid, claims(nil)), "bad signature"},
		{"claims exchanged", goodParts[0] + "." + encode(`{"iss":"tulle.local"}`) + "." + goodParts[2], "bad signature"},
		{"JSON form", `{"payload":"` + goodParts[1] + `","protected":"` + goodParts[0] + `","signature":"` + goodParts[2] + `"}`, "malformed"},
		{"an unknown critical header", criticalHeader(t, private, kid, claims(nil)), "bad signature"},

		{"another issuer", forge(t, jose.ES256, private, kid, claims(set("iss", "kubernetes"))), "wrong issuer"},
		{"another audience", forge(t, jose.ES256, private, kid, claims(set("aud", []string{"vault"}))), "wrong audience"},
		{"no audience", forge(t, jose.ES256, private, kid, claims(unset("aud"))), "wrong audience"},
		{"expired", forge(t, jose.ES256, private, kid, claims(set("exp", now.Add(-2*time.Minute).Unix()))), "expired"},
		{"no expiry", forge(t, jose.ES256, private, kid, claims(unset("exp"))), "malformed"},
		{"no issue time", forge(t, jose.ES256, private, kid, claims(unset("iat"))), "malformed"},
		{"issued in the future", forge(t, jose.ES256, private, kid, claims(set("iat", now.Add(10*time.Minute).Unix()))), "not valid yet"},
		{"not before later", forge(t, jose.ES256, private, kid, claims(set("nbf", now.Add(10*time.Minute).Unix()))), "not valid yet"},
		{"a life too long", forge(t, jose.ES256, private, kid, claims(set("exp", now.Add(2*nodetoken.MaxTTL).Unix()))), "lives too long"},
		{"a life over the end of time", forge(t, jose.ES256, private, kid, claims(func(c map[string]any) { c["exp"] = int64(1) << 61; c["iat"] = -int64(1) << 61 })), "lives too long"},
		{"expiry of another type", forge(t, jose.ES256, private, kid, claims(set("exp", "tomorrow"))), "malformed"},
		{"another subject", forge(t, jose.ES256, private, kid, claims(set("sub", "system:serviceaccount:istio-system:ztunnel"))), "malformed"},
		{"no kubernetes.io", forge(t, jose.ES256, private, kid, claims(unset("kubernetes.io"))), "malformed"},
		{"a user", forge(t, jose.ES256, private, kid, claims(func(c map[string]any) { c["sub"] = "admin"; delete(c, "kubernetes.io") })), "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := verifier(ours).Verify(tt.token)
			var refused *nodetoken.Error
			if !errors.As(err, &refused) {
				t.Fatalf("claims %+v, error %v, want an *Error", got, err)
			}
			if refused.Reason != tt.reason {
				t.Errorf("%v, want reason %q", err, tt.reason)
			}
			if got.Namespace != "" {
				t.Errorf("claims %+v beside the refusal", got)
			}
		})
	}

	if _, err := (nodetoken.Verifier{}).Verify(good); err == nil {
		t.Error("a verifier without keys accepts a token")
	}
	if _, err := (nodetoken.Verifier{Keys: []*nodetoken.PublicKey{ours.Public()}, Audience: "other"}).Verify(good); err == nil {
		t.Error("a verifier for another audience accepts the token")
	}
}

func withEmbeddedKey(t testing.TB, key *ecdsa.PrivateKey, kid string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		(&jose.SignerOptions{}).WithHeader("jwk", jose.JSONWebKey{Key: key.Public(), KeyID: kid}))
	must(t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(t, err)
	return token
}

func criticalHeader(t testing.TB, key *ecdsa.PrivateKey, kid string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		(&jose.SignerOptions{}).WithHeader("crit", []string{"x"}).WithHeader("x", 1))
	must(t, err)
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	must(t, err)
	return token
}

func TestTimesAreCheckedWithLeeway(t *testing.T) {
	key := newKey(t)
	token, err := nodetoken.Mint(key, ztunnel, time.Hour)
	must(t, err)
	minted := time.Now()
	for _, tt := range []struct {
		at time.Duration
		ok bool
	}{
		{-2 * time.Minute, false}, {-30 * time.Second, true}, {0, true}, {59 * time.Minute, true},
		{time.Hour + 30*time.Second, true}, {time.Hour + 2*time.Minute, false},
	} {
		v := verifier(key)
		v.Now = func() time.Time { return minted.Add(tt.at) }
		if _, err := v.Verify(token); (err == nil) != tt.ok {
			t.Errorf("%v after minting: %v, want accepted %v", tt.at, err, tt.ok)
		}
	}
}

func TestEveryTruncationOfATokenIsRefused(t *testing.T) {
	key := newKey(t)
	token, err := nodetoken.Mint(key, ztunnel, time.Hour)
	must(t, err)
	for n := range token {
		if _, err := verifier(key).Verify(token[:n]); err == nil {
			t.Errorf("the first %d of %d bytes passed", n, len(token))
		}
	}
}

func TestKeysInFiles(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t)
	private, err := key.MarshalPrivatePEM()
	must(t, err)
	public, err := key.PublicPEM()
	must(t, err)
	write := func(name string, data []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, data, mode))
		must(t, os.Chmod(path, mode))
		return path
	}
	privateFile, publicFile := write("private", private, 0o600), write("public", public, 0o644)
	loaded, err := nodetoken.LoadPrivate(privateFile)
	must(t, err)
	loadedPublic, err := nodetoken.LoadPublic(publicFile)
	must(t, err)
	if loadedPublic.ID() != key.Public().ID() {
		t.Errorf("key %s, want %s", loadedPublic.ID(), key.Public().ID())
	}
	token, err := nodetoken.Mint(loaded, ztunnel, time.Hour)
	must(t, err)
	if _, err := (nodetoken.Verifier{Keys: []*nodetoken.PublicKey{loadedPublic}}).Verify(token); err != nil {
		t.Error(err)
	}

	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	wrongCurve, err := x509.MarshalPKCS8PrivateKey(p384)
	must(t, err)
	for name, load := range map[string]func() error{
		"missing":             func() error { _, err := nodetoken.LoadPrivate(filepath.Join(dir, "none")); return err },
		"public as private":   func() error { _, err := nodetoken.LoadPrivate(publicFile); return err },
		"private as public":   func() error { _, err := nodetoken.LoadPublic(privateFile); return err },
		"readable by a group": func() error { _, err := nodetoken.LoadPrivate(write("group", private, 0o640)); return err },
		"two keys": func() error {
			_, err := nodetoken.LoadPrivate(write("two", append(private, private...), 0o600))
			return err
		},
		"cut short": func() error { _, err := nodetoken.LoadPublic(write("cut", public[:50], 0o600)); return err },
		"endless": func() error {
			_, err := nodetoken.LoadPublic(write("endless", bytes.Repeat(public, 500), 0o600))
			return err
		},
		"another curve": func() error {
			_, err := nodetoken.LoadPrivate(write("p384", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: wrongCurve}), 0o600))
			return err
		},
	} {
		if err := load(); err == nil {
			t.Errorf("%s: loaded", name)
		} else if !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %q does not name the file", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f)
	token, err := nodetoken.Mint(key, ztunnel, time.Hour)
	must(f, err)
	f.Add(token)
	f.Add(encode(`{"alg":"none"}`) + "." + encode(`{}`) + ".")
	v := verifier(key)
	f.Fuzz(func(t *testing.T, text string) {
		if claims, err := v.Verify(text); err == nil && text != token {
			// Only another writing of the same token may pass: the signature
			// covers header and claims.
			if !strings.HasPrefix(text, token[:strings.LastIndexByte(token, '.')]) {
				t.Fatalf("%q passed as %+v", text, claims)
			}
		}
	})
}
