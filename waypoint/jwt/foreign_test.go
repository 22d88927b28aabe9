package jwt_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/internal/roottest"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
)

// TestForeignSignerAndServer has openssl sign, and a real server serve the key until
// it is gone.
func TestForeignSignerAndServer(t *testing.T) {
	openssl := roottest.Program(t, "openssl")
	dir := t.TempDir()
	private, public, input := filepath.Join(dir, "key.pem"), filepath.Join(dir, "pub.pem"), filepath.Join(dir, "input")
	run := func(args ...string) []byte {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), openssl, args...).Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		return out
	}
	run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private)
	run("pkey", "-in", private, "-pubout", "-out", public)
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	token := func(alg, claims string, options ...string) string {
		head := b64([]byte(`{"alg":"`+alg+`","typ":"JWT","kid":"foreign"}`)) + "." + b64([]byte(claims))
		if err := os.WriteFile(input, []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
		return head + "." + b64(run(append(append([]string{"dgst", "-sha256", "-sign", private}, options...), input)...))
	}
	claims := fmt.Sprintf(`{"iss":"joe","sub":"x","exp":%d}`, time.Now().Add(time.Hour).Unix())

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(jwks(t, signer{public: jose.JSONWebKey{Key: key, KeyID: "foreign"}})))
	}))
	defer srv.Close()
	k := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(new(net.Dialer).DialContext)})
	defer k.Close()
	c := jwt.NewChecker(compile(t, k, remote("joe", srv.URL+"/keys")))
	if err := check(t, c, token("RS256", claims)); err != nil {
		t.Error(err)
	}
	srv.Close()
	// Its keys count on, for tokens that nobody has seen too.
	if err := check(t, c, token("PS256", claims, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1")); err != nil {
		t.Error(err)
	}
	late := jwt.NewChecker(compile(t, k, remote("joe", srv.URL+"/others")))
	if err := check(t, late, token("RS256", claims)); !refused(err, "not available") {
		t.Error(err)
	}
	// A token by hand with another algorithm than its signature's.
	if err := check(t, c, token("RS384", claims)); !refused(err, "not by the key") {
		t.Error(err)
	}
}
