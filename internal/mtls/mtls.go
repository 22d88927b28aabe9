package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Application protocols of the carriers (RFC 9113, 3.1; RFC 9114, 3.1).
const (
	ProtocolH2 = "h2"
	ProtocolH3 = "h3"
)

// maxPeerCertificates bounds a peer's chain: leaf, intermediate and what a
// cross-signed rollover or a longer plugged-in chain needs.
const maxPeerCertificates = 10

// Option changes a configuration of [Server] or [Client].
type Option func(*options)

type options struct {
	protocol string
	now      func() time.Time
}

// WithProtocol sets the application protocol offered and required; the default
// is ProtocolH2.
func WithProtocol(protocol string) Option { return func(o *options) { o.protocol = protocol } }

// WithNow sets the clock against which certificates are checked.
func WithNow(now func() time.Time) Option { return func(o *options) { o.now = now } }

func newOptions(opts []Option) options {
	o := options{protocol: ProtocolH2, now: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Server returns the configuration of the accepting side. The peer must present
// an X509-SVID of the trust domain of src's own, valid by bundles. The
// configuration may be used for many connections; it must not be changed.
func Server(src x509svid.Source, bundles x509bundle.Source, opts ...Option) *tls.Config {
	o := newOptions(opts)
	own := certificates{src: src}
	cfg := base(o)
	cfg.ClientAuth = tls.RequireAnyClientCert // verified in VerifyConnection
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.current() }
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, o.protocol); err != nil {
			return err
		}
		svid, err := src.GetX509SVID()
		if err != nil {
			return fmt.Errorf("own certificate: %w", err)
		}
		id, err := verify(cs.PeerCertificates, bundles, x509.ExtKeyUsageClientAuth, o.now())
		if err != nil {
			return err
		}
		if id.TrustDomain() != svid.ID.TrustDomain() {
			return &TrustDomainError{Got: id, Want: svid.ID.TrustDomain()}
		}
		return nil
	}
	return cfg
}

// Client returns the configuration of the dialling side. The peer must present
// an X509-SVID for one of expected, valid by bundles; with none expected every
// peer is refused. No server name is sent: proxies are known by address and
// identity only, and a name would tell observers which service is called.
func Client(src x509svid.Source, bundles x509bundle.Source, expected []spiffeid.ID, opts ...Option) *tls.Config {
	o := newOptions(opts)
	expected = slices.Clone(expected)
	own := certificates{src: src}
	cfg := base(o)
	// Go's own check is for host names; VerifyConnection replaces it.
	cfg.InsecureSkipVerify = true
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.current() }
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := checkProtocol(cs, o.protocol); err != nil {
			return err
		}
		id, err := verify(cs.PeerCertificates, bundles, x509.ExtKeyUsageServerAuth, o.now())
		if err != nil {
			return err
		}
		if !slices.Contains(expected, id) {
			return &PeerError{Got: id, Expected: slices.Clone(expected)}
		}
		return nil
	}
	return cfg
}

// base is common to all configurations. Cipher suites of TLS 1.3 cannot be
// chosen in Go: AES-128-GCM comes first where the hardware has AES. Curves are
// left nil: the default puts X25519MLKEM768 before X25519.
func base(o options) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		NextProtos:             []string{o.protocol},
		SessionTicketsDisabled: true,
		// Small first records let a browser show a page early. Here nothing
		// is gained by them, and each costs a system call.
		DynamicRecordSizingDisabled: true,
		Time:                        o.now,
	}
}

// checkProtocol refuses a peer without ALPN, which crypto/tls lets pass.
func checkProtocol(cs tls.ConnectionState, want string) error {
	if cs.NegotiatedProtocol != want {
		return &ProtocolError{Got: cs.NegotiatedProtocol, Want: want}
	}
	return nil
}

// verify checks that chain is an X509-SVID for usage that is valid at now, and
// returns its identity.
func verify(chain []*x509.Certificate, bundles x509bundle.Source, usage x509.ExtKeyUsage, now time.Time) (spiffeid.ID, error) {
	if len(chain) == 0 {
		return spiffeid.ID{}, &CertificateError{Err: errors.New("the peer presented none")}
	}
	if len(chain) > maxPeerCertificates {
		return spiffeid.ID{}, &CertificateError{Err: fmt.Errorf("chain of %d certificates, at most %d are read", len(chain), maxPeerCertificates)}
	}
	leaf := chain[0]
	id, _, err := x509svid.Verify(chain, bundles, x509svid.WithTime(now))
	if err != nil {
		return spiffeid.ID{}, &CertificateError{Claimed: id, Err: err}
	}
	// What go-spiffe leaves to the caller (X509-SVID, sections 2, 4.3 and 4.4).
	switch {
	case id.Path() == "":
		err = errors.New("the SPIFFE ID of a leaf needs a path")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		err = errors.New("it lacks the key usage digitalSignature")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, usage) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		err = errors.New("its extended key usages exclude this side of TLS")
	default:
		return id, nil
	}
	return spiffeid.ID{}, &CertificateError{Claimed: id, Err: err}
}

// Peer returns the identity of the other side of a finished handshake under a
// configuration of this package.
func Peer(cs tls.ConnectionState) (spiffeid.ID, error) {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return spiffeid.ID{}, errors.New("no peer certificate: handshake not complete")
	}
	return x509svid.IDFromCert(cs.PeerCertificates[0])
}

// NotAfter returns when the peer's certificate expires: no new stream should be
// opened on the connection after it. It is zero before the handshake has
// completed. The certificates above the leaf do not count: a peer may present
// more of them than its chain needs, expired ones too.
func NotAfter(cs tls.ConnectionState) time.Time {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return time.Time{}
	}
	return cs.PeerCertificates[0].NotAfter
}

// certificates turns the SVIDs of a source into TLS certificates, the same one
// again as long as the SVID is the same.
type certificates struct {
	src  x509svid.Source
	last atomic.Pointer[pair]
}

type pair struct {
	svid *x509svid.SVID
	cert *tls.Certificate
}

func (c *certificates) current() (*tls.Certificate, error) {
	svid, err := c.src.GetX509SVID()
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	if p := c.last.Load(); p != nil && p.svid == svid {
		return p.cert, nil
	}
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, x := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, x.Raw)
	}
	c.last.Store(&pair{svid, cert})
	return cert, nil
}

// PeerError says that the peer proved an identity, but another one than wanted.
type PeerError struct {
	Got      spiffeid.ID
	Expected []spiffeid.ID
}

func (e *PeerError) Error() string {
	if len(e.Expected) == 0 {
		return "peer is " + e.Got.String() + ", and no identity is expected there"
	}
	names := make([]string, len(e.Expected))
	for i, id := range e.Expected {
		names[i] = id.String()
	}
	return "peer is " + e.Got.String() + ", want " + strings.Join(names, " or ")
}

// TrustDomainError says that the peer's identity is of a foreign trust domain.
type TrustDomainError struct {
	Got  spiffeid.ID
	Want spiffeid.TrustDomain
}

func (e *TrustDomainError) Error() string {
	return "peer is " + e.Got.String() + ", want one of the trust domain " + e.Want.Name()
}

// CertificateError says that the peer has not proved any identity.
type CertificateError struct {
	// Claimed is what the certificate says, unproved; zero when it says
	// nothing that can be read.
	Claimed spiffeid.ID
	Err     error
}

func (e *CertificateError) Error() string {
	if e.Claimed.IsZero() {
		return "peer certificate: " + e.Err.Error()
	}
	return "peer certificate for " + e.Claimed.String() + ": " + e.Err.Error()
}

func (e *CertificateError) Unwrap() error { return e.Err }

// ProtocolError says that the peer speaks another application protocol or named
// none.
type ProtocolError struct{ Got, Want string }

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("peer agreed on application protocol %q, want %q", e.Got, e.Want)
}
