package certs_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/roottest"
)

// openssl runs the program in dir and returns what it says.
func openssl(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(roottest.Program(t, "openssl"), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustOpenssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := openssl(t, dir, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestOpensslAcceptsOurChains(t *testing.T) {
	dir := t.TempDir()
	a := open(t, filepath.Join(dir, "ca"), certs.AuthorityConfig{})
	svid, _, err := certs.LocalSigner{Authority: a}.Sign(context.Background(), spiffeid.RequireFromString(web))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "leaf.pem"), certs.EncodeChain(svid.Certificates[0]), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "rest.pem"), certs.EncodeChain(svid.Certificates[1:]...), 0o600))
	roots := filepath.Join("ca", certs.RootBundleFile)
	for _, purpose := range []string{"sslserver", "sslclient"} {
		mustOpenssl(t, dir, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", roots, "-untrusted", "rest.pem", "leaf.pem")
	}
	text := mustOpenssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-text")
	for _, want := range []string{
		"Subject Alternative Name: critical\n                URI:" + web + "\n",
		"Key Usage: critical\n                Digital Signature\n",
		"TLS Web Server Authentication, TLS Web Client Authentication\n",
		"Basic Constraints: critical\n                CA:FALSE\n",
		"ASN1 OID: prime256v1",
		"Signature Algorithm: ecdsa-with-SHA256",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not show %q in\n%s", want, text)
		}
	}
	text = mustOpenssl(t, dir, "x509", "-in", "rest.pem", "-noout", "-text")
	for _, want := range []string{
		"Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
		"Key Usage: critical\n                Certificate Sign, CRL Sign\n",
		"URI:spiffe://cluster.local\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not show %q in\n%s", want, text)
		}
	}
	serial := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(mustOpenssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-serial"), "serial=")))
	if got := certs.SerialText(svid.Certificates[0].SerialNumber); strings.TrimLeft(serial, "0") != got {
		t.Errorf("serial %s, openssl says %s", got, serial)
	}

	if out, err := openssl(t, dir, "verify", "-CAfile", roots, "leaf.pem"); err == nil {
		t.Errorf("openssl accepts the leaf without the intermediate:\n%s", out)
	}
}

func TestOpensslAcceptsOurRequests(t *testing.T) {
	dir := t.TempDir()
	_, csr, err := certs.NewRequest(spiffeid.RequireFromString(web))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "csr.pem"), csr, 0o600))
	text := mustOpenssl(t, dir, "req", "-verify", "-in", "csr.pem", "-noout", "-text")
	for _, want := range []string{
		"Subject: \n",
		"Subject Alternative Name: critical\n                    URI:" + web + "\n",
		"Signature Algorithm: ecdsa-with-SHA256",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not show %q in\n%s", want, text)
		}
	}
}

// Requests made by openssl: what it can make and we refuse, and the other way
// round, shows that neither reads the other's encoding differently.
func TestRequestsMadeByOpenssl(t *testing.T) {
	dir := t.TempDir()
	id := spiffeid.RequireFromString(web)
	for _, tt := range []struct {
		name   string
		key    string
		opts   []string
		reason certs.Reason // "" for accepted
	}{
		{"P-256", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=critical,URI:" + web}, ""},
		{"P-384", "ec -pkeyopt ec_paramgen_curve:P-384", []string{"-addext", "subjectAltName=URI:" + web}, ""},
		{"RSA", "rsa:3072", []string{"-addext", "subjectAltName=URI:" + web}, ""},
		{"key usages", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=URI:" + web, "-addext", "keyUsage=digitalSignature", "-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", "basicConstraints=CA:FALSE"}, ""},
		{"explicit curve parameters", "ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", []string{"-addext", "subjectAltName=URI:" + web}, certs.ReasonMalformed},
		{"secp256k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", []string{"-addext", "subjectAltName=URI:" + web}, certs.ReasonMalformed},
		{"weak RSA", "rsa:1024", []string{"-addext", "subjectAltName=URI:" + web}, certs.ReasonKey},
		{"Ed25519", "ed25519", []string{"-addext", "subjectAltName=URI:" + web}, certs.ReasonKey},
		{"SHA-1", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-sha1", "-addext", "subjectAltName=URI:" + web}, certs.ReasonSignature},
		{"DNS name", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=URI:" + web + ",DNS:istiod"}, certs.ReasonName},
		{"other name", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=URI:" + web + ",otherName:1.2.3.4;UTF8:root"}, certs.ReasonName},
		{"directory name", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=dirName:dn", "-addext", "basicConstraints=CA:FALSE"}, certs.ReasonName},
		{"an authority", "ec -pkeyopt ec_paramgen_curve:P-256", []string{"-addext", "subjectAltName=URI:" + web, "-addext", "basicConstraints=critical,CA:TRUE"}, certs.ReasonExtension},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := filepath.Join(dir, "openssl.cnf")
			must(t, os.WriteFile(config, []byte("[req]\ndistinguished_name=dn\n[dn]\nCN=x\n"), 0o600))
			args := append([]string{"req", "-config", config, "-new", "-nodes", "-subj", "/", "-keyout", "key.pem", "-out", "csr.pem", "-newkey"},
				append(strings.Fields(tt.key), tt.opts...)...)
			mustOpenssl(t, dir, args...)
			csr, err := os.ReadFile(filepath.Join(dir, "csr.pem"))
			must(t, err)
			_, got, err := certs.ParseCSR(csr)
			var refused *certs.CSRError
			switch {
			case tt.reason == "" && (err != nil || got != id):
				t.Errorf("identity %s, error %v", got, err)
			case tt.reason != "" && (!errors.As(err, &refused) || refused.Reason != tt.reason):
				t.Errorf("error %v, want reason %s", err, tt.reason)
			}
		})
	}
}
