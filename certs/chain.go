package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	certificatePEMType = "CERTIFICATE"
	pemBegin           = "-----BEGIN "
)

// ParseChain parses the certificates in a PEM text, at least one, at most
// MaxChainCertificates. Anything but certificates in it is an error: a private
// key that slipped into a bundle should be noticed, not passed over.
func ParseChain(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxChainBytes {
		return nil, fmt.Errorf("PEM text of %d bytes, at most %d are read", len(text), MaxChainBytes)
	}
	// pem.Decode passes over a block that is cut short or garbled; a truncated
	// bundle would then pass as a smaller one.
	blocks := bytes.Count(text, []byte(pemBegin))
	var chain []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != certificatePEMType {
			return nil, fmt.Errorf("PEM block of type %.40q among certificates", block.Type)
		}
		if len(chain) == MaxChainCertificates {
			return nil, fmt.Errorf("more than %d certificates", MaxChainCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain), err)
		}
		chain = append(chain, cert)
		text = rest
	}
	if blocks != len(chain) {
		return nil, fmt.Errorf("%d of %d PEM blocks are broken", blocks-len(chain), blocks)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return chain, nil
}

// EncodeChain returns the certificates as one PEM text.
func EncodeChain(chain ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, cert := range chain {
		// Encoding to a bytes.Buffer fails only for malformed headers; there are none.
		_ = pem.Encode(&b, &pem.Block{Type: certificatePEMType, Bytes: cert.Raw})
	}
	return b.Bytes()
}
