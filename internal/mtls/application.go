package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Application says how a proxy speaks TLS to an application that does so itself. Its
// rules are the application's, not the mesh's: TLS 1.2 is spoken, and certificates are
// for names.
type Application struct {
	// ServerName is sent as SNI and, without SubjectNames, what the certificate must be
	// for: a DNS name or an IP address, which is not sent.
	ServerName string
	// SubjectNames are DNS names or URIs of which the certificate must carry one.
	SubjectNames []string
	// Roots that the certificate must chain to; nil are the system's.
	Roots Roots
	// Insecure accepts any certificate.
	Insecure bool
	// Certificate and Key are files in PEM that show who the proxy is, read again at
	// every handshake that asks for it; empty without.
	Certificate, Key string
	// SVID and Bundles, where they are set, make it the mesh's mutual TLS: the peer is
	// checked by its SPIFFE ID, which must be one of SubjectNames, or of the SVID's trust
	// domain where there are none.
	SVID    x509svid.Source
	Bundles x509bundle.Source
}

// ApplicationClient returns the configuration of a proxy that dials an application. Who
// uses it sets NextProtos on a clone.
func ApplicationClient(a Application) (*tls.Config, error) {
	names := slices.Clone(a.SubjectNames)
	switch {
	case (a.Certificate == "") != (a.Key == ""):
		return nil, errors.New("TLS to the application: a client's certificate without its key, or a key without a certificate")
	case a.SVID == nil && !a.Insecure && a.ServerName == "" && len(names) == 0:
		return nil, errors.New("TLS to the application: no name to check its certificate against")
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: a.ServerName, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		// Go's own check knows one name and fixed roots; VerifyConnection replaces it.
		InsecureSkipVerify: true,
	}
	switch {
	case a.SVID != nil:
		own := certificates{src: a.SVID}
		cfg.MinVersion = tls.VersionTLS13
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.current() }
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			return verifyMeshApplication(cs, a.SVID, a.Bundles, names)
		}
		return cfg, nil
	case a.Certificate != "":
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := loadPair(a.Certificate, a.Key)
			if err != nil {
				return nil, fmt.Errorf("own certificate: %w", err)
			}
			return &pair, nil
		}
	}
	if !a.Insecure {
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			return verifyApplication(cs.PeerCertificates, a.Roots, a.ServerName, names)
		}
	}
	return cfg, nil
}

// loadPair reads a certificate and its key. Whoever writes a DestinationRule chooses the
// files: some of the system's have no end, and a pipe nobody to write to it.
func loadPair(certificate, key string) (tls.Certificate, error) {
	cert, err := readPEM(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	secret, err := readPEM(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, secret)
}

// readPEM reads a regular file of at most maxRootsBytes.
func readPEM(path string) ([]byte, error) {
	// Not blocking: to open a pipe waits for who writes to it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRootsBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxRootsBytes:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxRootsBytes)
	}
	return text, nil
}

// verifyApplication checks a chain against roots, and its leaf against the names.
func verifyApplication(chain []*x509.Certificate, roots Roots, serverName string, names []string) error {
	if len(chain) == 0 {
		return &CertificateError{Err: errors.New("the application presented none")}
	}
	var pool *x509.CertPool
	if roots != nil {
		var err error
		if pool, err = roots(); err != nil {
			return err
		}
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return &CertificateError{Err: err}
	}
	if len(names) == 0 {
		names = []string{serverName}
	}
	for _, name := range names {
		if carries(leaf, name) {
			return nil
		}
	}
	return &CertificateError{Err: fmt.Errorf("it is for %s, not for %s", namesOf(leaf), strings.Join(names, " or "))}
}

// carries reports whether a certificate is for a DNS name, an IP address or a URI.
func carries(leaf *x509.Certificate, name string) bool {
	if !strings.Contains(name, "://") {
		return leaf.VerifyHostname(name) == nil
	}
	for _, u := range leaf.URIs {
		if u.String() == name {
			return true
		}
	}
	return false
}

// namesOf lists a certificate's names, at most some of them.
func namesOf(leaf *x509.Certificate) string {
	const most = 5
	list := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			list = append(list, a.Unmap().String())
		}
	}
	for _, u := range leaf.URIs {
		list = append(list, u.String())
	}
	switch {
	case len(list) == 0:
		return "nobody"
	case len(list) > most:
		list = append(list[:most], fmt.Sprintf("%d more", len(list)-most))
	}
	return strings.Join(list, ", ")
}

func verifyMeshApplication(cs tls.ConnectionState, src x509svid.Source, bundles x509bundle.Source, names []string) error {
	id, err := verify(cs.PeerCertificates, bundles, x509.ExtKeyUsageServerAuth, time.Now())
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if !slices.Contains(names, id.String()) {
			return &CertificateError{Claimed: id, Err: fmt.Errorf("not one of %s", strings.Join(names, ", "))}
		}
		return nil
	}
	svid, err := src.GetX509SVID()
	if err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	if id.TrustDomain() != svid.ID.TrustDomain() {
		return &TrustDomainError{Got: id, Want: svid.ID.TrustDomain()}
	}
	return nil
}
