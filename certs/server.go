package certs

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ServerSource hands out the control plane's own certificate and makes a new
// one when half of its life is over or another issuer is in force, on the
// handshake that finds it so. It is safe for concurrent use.
type ServerSource struct {
	authority *Authority
	dnsNames  []string
	addresses []netip.Addr

	mu      sync.Mutex
	current *tls.Certificate
	by      *signer // in force when current was made
	renewAt time.Time
}

// ServerSource returns a source of certificates for a server with these names.
// Nothing is made before the first use.
func (a *Authority) ServerSource(dnsNames []string, addresses []netip.Addr) *ServerSource {
	return &ServerSource{authority: a, dnsNames: slices.Clone(dnsNames), addresses: slices.Clone(addresses)}
}

// Certificate returns the current certificate. When a due one cannot be
// renewed, the old one is returned as long as it is valid.
func (s *ServerSource) Certificate() (*tls.Certificate, error) {
	now := s.authority.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	by := s.authority.inForce.Load()
	if s.current != nil && s.by == by && now.Before(s.renewAt) {
		return s.current, nil
	}
	fresh, err := s.authority.ServerCertificate(s.dnsNames, s.addresses)
	if err != nil {
		if s.current != nil && now.Before(s.current.Leaf.NotAfter) {
			return s.current, nil
		}
		return nil, err
	}
	s.current, s.by = fresh, by
	s.renewAt = now.Add(fresh.Leaf.NotAfter.Sub(now) / 2)
	return fresh, nil
}
