package mtls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// maxRootsBytes bounds a file of roots or of one's own certificate. System bundles have about 250 KiB.
const maxRootsBytes = 1 << 20

// ControlPlaneServer returns the configuration of the control plane's port:
// the server is authenticated by a certificate for its names, clients are by
// bearer tokens above TLS. certificate is called at every handshake.
func ControlPlaneServer(certificate func() (*tls.Certificate, error)) *tls.Config {
	cfg := base(options{protocol: ProtocolH2, now: time.Now})
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() }
	return cfg
}

// Roots yields the certificates that a client of the control plane trusts. It is
// called at every handshake.
type Roots func() (*x509.CertPool, error)

// RootsFromPEM trusts the certificates of a PEM text.
func RootsFromPEM(text []byte) (Roots, error) {
	pool, err := parseRoots(text)
	if err != nil {
		return nil, err
	}
	return func() (*x509.CertPool, error) { return pool, nil }, nil
}

// RootsFromFile trusts the certificates of a PEM file, read again at every
// handshake: roots are replaced under running proxies.
func RootsFromFile(path string) Roots {
	return func() (*x509.CertPool, error) {
		text, err := readPEM(path)
		if err != nil {
			return nil, fmt.Errorf("roots of the control plane: %w", err)
		}
		pool, err := parseRoots(text)
		if err != nil {
			return nil, fmt.Errorf("roots of the control plane: %s: %w", path, err)
		}
		return pool, nil
	}
}

func parseRoots(text []byte) (*x509.CertPool, error) {
	if len(text) > maxRootsBytes {
		return nil, fmt.Errorf("more than %d bytes", maxRootsBytes)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bytes.TrimSpace(text)) {
		return nil, errors.New("no certificate in PEM")
	}
	return pool, nil
}

// ControlPlaneClient returns the configuration of a client of the control plane:
// the server must present a certificate for serverName (a DNS name or an IP
// address) that chains to roots.
func ControlPlaneClient(roots Roots, serverName string) *tls.Config {
	cfg := base(options{protocol: ProtocolH2, now: time.Now})
	cfg.ServerName = serverName
	// Go's check has fixed roots; VerifyConnection does the same with the
	// current ones.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if serverName == "" {
			return errors.New("control plane: no server name to check the certificate against")
		}
		if len(cs.PeerCertificates) == 0 {
			return &CertificateError{Err: errors.New("the control plane presented none")}
		}
		pool, err := roots()
		if err != nil {
			return err
		}
		intermediates := x509.NewCertPool()
		for _, cert := range cs.PeerCertificates[1:] {
			intermediates.AddCert(cert)
		}
		_, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{
			DNSName:       serverName,
			Roots:         pool,
			Intermediates: intermediates,
			KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			return &CertificateError{Err: fmt.Errorf("control plane as %s: %w", serverName, err)}
		}
		return nil
	}
	return cfg
}
