package catalog

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/e2e/cluster/image"
)

// echoValidity is how long the certificate of the echo server holds: longer than
// anybody keeps an image of the tests.
const echoValidity = 10 * 365 * 24 * time.Hour

// echo packs the server and client of the conformance suite. The suite calls the
// client by its bare name and the server by the image's entry point, with the
// certificate where the image has to have it.
func (s Sources) echo(ctx context.Context) (image.Spec, error) {
	program, err := s.program(ctx, filepath.Join(s.Module, "..", "conformance"), "./echo")
	if err != nil {
		return image.Spec{}, err
	}
	certificate, key, err := selfSigned()
	if err != nil {
		return image.Spec{}, fmt.Errorf("the certificate of the echo server: %w", err)
	}
	f := image.NewFiles()
	accounts(f, "app", 1000)
	f.Content("/usr/local/bin/server", 0o755, program)
	f.Link("/usr/local/bin/client", "server")
	f.Content("/cert.crt", 0o644, certificate)
	// The server runs as nobody in particular; the key is of a test's server.
	f.Content("/cert.key", 0o644, key)
	return image.Spec{Name: Echo, Entrypoint: []string{"/usr/local/bin/server"}, User: "1000", Files: f}, nil
}

// selfSigned makes a certificate that nobody verifies, in PEM.
func selfSigned() (certificate, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.Unix()), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(echoValidity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), nil
}
