package certs

import (
	"crypto/x509"
	"encoding/base64"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// State is the state of one identity's certificate on a node.
type State string

const (
	// StatePending: the first certificate is being fetched.
	StatePending State = "pending"
	// StateFailed: there is no certificate, and the last attempt failed.
	StateFailed State = "failed"
	// StateValid: the certificate is in its first half, nothing to do.
	StateValid State = "valid"
	// StateRenewing: the certificate is valid and its successor being fetched.
	StateRenewing State = "renewing"
	// StateOverdue: the certificate is valid but could not be renewed in time.
	StateOverdue State = "overdue"
	// StateExpired: the certificate is valid no more and has no successor.
	StateExpired State = "expired"
)

// States lists all states, worst last.
func States() []State {
	return []State{StateValid, StateRenewing, StatePending, StateOverdue, StateFailed, StateExpired}
}

// Status tells of one identity's certificate. The times are zero and the chain
// is empty while there is none.
type Status struct {
	Identity     spiffeid.ID `json:"identity"`
	State        State       `json:"state"`
	Serial       string      `json:"serial,omitempty"`       // see SerialText
	IssuerSerial string      `json:"issuerSerial,omitempty"` // of the certificate that signed, when it came along
	NotBefore    time.Time   `json:"notBefore,omitzero"`
	NotAfter     time.Time   `json:"notAfter,omitzero"`
	// RenewAt is when the next attempt to fetch one is due.
	RenewAt time.Time `json:"renewAt,omitzero"`
	// LastError says why the last attempt failed; empty after a success.
	LastError string `json:"lastError,omitempty"`
	// Leases counts the workloads on this node that use the certificate.
	Leases int `json:"leases"`
	// Chain is PEM, the leaf first.
	Chain string `json:"chain,omitempty"`
	// Roots is the PEM of the bundle that came with the certificate.
	Roots string `json:"roots,omitempty"`
}

// NewStatus fills in what the certificate itself tells. svid and bundle may be
// nil.
func NewStatus(id spiffeid.ID, state State, svid *x509svid.SVID, bundle *x509bundle.Bundle) Status {
	s := Status{Identity: id, State: state}
	if svid != nil && len(svid.Certificates) > 0 {
		leaf := svid.Certificates[0]
		s.Serial = SerialText(leaf.SerialNumber)
		s.NotBefore, s.NotAfter = leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
		s.Chain = string(EncodeChain(svid.Certificates...))
		if len(svid.Certificates) > 1 {
			s.IssuerSerial = SerialText(svid.Certificates[1].SerialNumber)
		}
	}
	if bundle != nil {
		s.Roots = string(EncodeChain(bundle.X509Authorities()...))
	}
	return s
}

// Dump is one entry of "certificates" in a ztunnel's /config_dump, in the form
// that istioctl ztunnel-config certificate reads.
type Dump struct {
	Identity  string            `json:"identity"`
	State     string            `json:"state"` // "Available", "Initializing" or "Unavailable: why"
	CertChain []DumpCertificate `json:"certChain"`
	RootCerts []DumpCertificate `json:"rootCerts"`
}

// DumpCertificate is one certificate of a [Dump].
type DumpCertificate struct {
	PEM            string `json:"pem"`            // base64 of the PEM text
	SerialNumber   string `json:"serialNumber"`   // decimal: istioctl parses it and prints hexadecimal
	ValidFrom      string `json:"validFrom"`      // RFC 3339
	ExpirationTime string `json:"expirationTime"` // RFC 3339
}

// Dump returns the status in the form of Istio's config_dump.
func (s Status) Dump() Dump {
	d := Dump{Identity: s.Identity.String(), CertChain: dumpChain(s.Chain), RootCerts: dumpChain(s.Roots)}
	switch s.State {
	case StateValid, StateRenewing, StateOverdue:
		d.State = "Available"
	case StatePending:
		d.State = "Initializing"
	default:
		d.State = "Unavailable: " + string(s.State)
		if s.LastError != "" {
			d.State += ": " + s.LastError
		}
	}
	return d
}

// Dumps returns what a config_dump shows of many.
func Dumps(statuses []Status) []Dump {
	dumps := make([]Dump, len(statuses))
	for i, s := range statuses {
		dumps[i] = s.Dump()
	}
	return dumps
}

func dumpChain(text string) []DumpCertificate {
	chain := []DumpCertificate{}
	if text == "" {
		return chain
	}
	// The text was encoded from certificates by NewStatus.
	certs, err := ParseChain([]byte(text))
	if err != nil {
		return chain
	}
	for _, cert := range certs {
		chain = append(chain, dumpCertificate(cert))
	}
	return chain
}

func dumpCertificate(cert *x509.Certificate) DumpCertificate {
	return DumpCertificate{
		PEM:            base64.StdEncoding.EncodeToString(EncodeChain(cert)),
		SerialNumber:   cert.SerialNumber.String(),
		ValidFrom:      cert.NotBefore.UTC().Format(time.RFC3339),
		ExpirationTime: cert.NotAfter.UTC().Format(time.RFC3339),
	}
}
