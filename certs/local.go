package certs

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// LocalSigner issues certificates from an authority in the same process, by the
// same request and with the same checks as over the network.
type LocalSigner struct {
	Authority *Authority
	// TTL is the lifetime asked for; zero means the authority's default.
	TTL time.Duration
}

// Sign makes a key and has the authority sign a certificate of id for it.
func (s LocalSigner) Sign(_ context.Context, id spiffeid.ID) (*x509svid.SVID, *x509bundle.Bundle, error) {
	key, csr, err := NewRequest(id)
	if err != nil {
		return nil, nil, err
	}
	chain, err := s.Authority.Sign(csr, id, s.TTL)
	if err != nil {
		return nil, nil, err
	}
	return VerifyIssued(chain, key, id, s.Authority.cfg.Now())
}
