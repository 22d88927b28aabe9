package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are those with a public key.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// key is one public key of an issuer.
type key struct {
	// id and alg are empty where the set does not say.
	id, alg string
	public  any
}

// keySet is immutable; its address stands for its content.
type keySet struct {
	keys []key
	sum  [sha256.Size]byte
}

// parseKeySet reads a key set (RFC 7517, 5), or an object of certificates by the
// keys' names as some issuers publish it. Keys of kinds that are of no use here are
// passed over; a set without any other is an error.
func parseKeySet(doc []byte) (*keySet, error) {
	if len(doc) > maxDocumentBytes {
		return nil, fmt.Errorf("key set: longer than %d bytes", maxDocumentBytes)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	set := &keySet{sum: sha256.Sum256(doc)}
	var err error
	if raw, ok := members["keys"]; ok {
		err = set.addJWKs(raw)
	} else {
		err = set.addCertificates(members)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("key set: %w", err)
	case len(set.keys) == 0:
		return nil, errors.New("key set: no public key for signatures that is supported")
	}
	return set, nil
}

func (s *keySet) addJWKs(raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if len(list) > maxKeys {
		return fmt.Errorf("keys: %d entries, more than %d", len(list), maxKeys)
	}
	for _, one := range list {
		var jwk jose.JSONWebKey
		if jwk.UnmarshalJSON(one) != nil || jwk.Use != "" && jwk.Use != "sig" {
			continue
		}
		if !jwk.IsPublic() {
			jwk = jwk.Public()
		}
		if usable(jwk.Key) {
			s.keys = append(s.keys, key{id: jwk.KeyID, alg: jwk.Algorithm, public: jwk.Key})
		}
	}
	return nil
}

func (s *keySet) addCertificates(members map[string]json.RawMessage) error {
	if len(members) > maxKeys {
		return fmt.Errorf("%d certificates, more than %d", len(members), maxKeys)
	}
	for id, raw := range members {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		block, _ := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil && usable(cert.PublicKey) {
			s.keys = append(s.keys, key{id: id, public: cert.PublicKey})
		}
	}
	return nil
}

func usable(public any) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// fits reports whether a signature by that algorithm can be the key's.
func (k *key) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return strings.HasPrefix(alg, "ES")
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	}
	return false
}

// errKey says that newer keys might verify what these did not.
var errKey = errors.New("no key of the issuer verifies the token")

// verify returns the payload. A token that names a key is held to keys of that name,
// or, without any, to those that have none.
func (s *keySet) verify(sig *jose.JSONWebSignature) ([]byte, error) {
	header := sig.Signatures[0].Protected
	named := false
	if header.KeyID != "" {
		for i := range s.keys {
			named = named || s.keys[i].id == header.KeyID
		}
	}
	for i := range s.keys {
		k := &s.keys[i]
		if named && k.id != header.KeyID || !named && header.KeyID != "" && k.id != "" || !k.fits(header.Algorithm) {
			continue
		}
		if payload, err := sig.Verify(k.public); err == nil {
			return payload, nil
		}
	}
	if named {
		return nil, errors.New("the signature is not by the key that the token names")
	}
	return nil, errKey
}
