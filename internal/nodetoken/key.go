package nodetoken

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-jose/go-jose/v4"
)

const (
	privatePEMType = "PRIVATE KEY"
	publicPEMType  = "PUBLIC KEY"
)

// Key signs tokens. Make it with [GenerateKey] or [LoadPrivate].
type Key struct {
	private *ecdsa.PrivateKey
	public  *PublicKey
}

// PublicKey checks tokens.
type PublicKey struct {
	key *ecdsa.PublicKey
	id  string
}

// GenerateKey makes a new P-256 key.
func GenerateKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate node token key: %w", err)
	}
	return newKey(private)
}

func newKey(private *ecdsa.PrivateKey) (*Key, error) {
	public, err := newPublicKey(&private.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Key{private: private, public: public}, nil
}

func newPublicKey(key *ecdsa.PublicKey) (*PublicKey, error) {
	if key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("key on curve %s, want P-256", key.Curve.Params().Name)
	}
	thumbprint, err := (&jose.JSONWebKey{Key: key}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &PublicKey{key: key, id: base64.RawURLEncoding.EncodeToString(thumbprint)}, nil
}

// Public returns the half of the key that checks.
func (k *Key) Public() *PublicKey { return k.public }

// ID is the key's thumbprint (RFC 7638), which tokens carry as "kid".
func (k *PublicKey) ID() string { return k.id }

// MarshalPrivatePEM returns the private key as PKCS #8 in PEM.
func (k *Key) MarshalPrivatePEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privatePEMType, Bytes: der}), nil
}

// PublicPEM returns the public key in PEM.
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicPEMType, Bytes: der}), nil
}

// LoadPrivate reads a key written with MarshalPrivatePEM. A file that group or
// others may read is refused.
func LoadPrivate(path string) (*Key, error) {
	der, mode, err := readPEM(path, privatePEMType)
	if err != nil {
		return nil, fmt.Errorf("node token key: %w", err)
	}
	if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("node token key: %s holds a private key and has mode %04o, want 0600", path, mode.Perm())
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("node token key %s: %w", path, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("node token key %s: %T, want ECDSA P-256", path, parsed)
	}
	key, err := newKey(private)
	if err != nil {
		return nil, fmt.Errorf("node token key %s: %w", path, err)
	}
	return key, nil
}

// LoadPublic reads a key written with PublicPEM.
func LoadPublic(path string) (*PublicKey, error) {
	der, _, err := readPEM(path, publicPEMType)
	if err != nil {
		return nil, fmt.Errorf("node token key: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("node token key %s: %w", path, err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("node token key %s: %T, want ECDSA P-256", path, parsed)
	}
	key, err := newPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("node token key %s: %w", path, err)
	}
	return key, nil
}

func readPEM(path, pemType string) ([]byte, os.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if len(data) > maxKeyBytes {
		return nil, 0, fmt.Errorf("%s is larger than %d bytes", path, maxKeyBytes)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		err = errors.New("no PEM block")
	case block.Type != pemType:
		err = fmt.Errorf("PEM block of type %.40q, want %q", block.Type, pemType)
	case len(bytes.TrimSpace(rest)) > 0:
		err = errors.New("data after the PEM block")
	default:
		return block.Bytes, info.Mode(), nil
	}
	return nil, 0, fmt.Errorf("%s: %w", path, err)
}
