package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Names of the files in an authority's directory.
const (
	rootFile         = "root.pem"
	intermediateFile = "intermediate.pem"
	// RootBundleFile is the public one: the roots that clients are to trust.
	RootBundleFile = "root-cert.pem"
	lockFile       = "lock"
)

// ErrInUse says that another authority works on the directory.
var ErrInUse = errors.New("in use by another authority")

// state is an authority's directory, locked.
type state struct {
	dir  string
	disk disk
	lock *os.File
}

// openState makes the directory when it is missing and takes its lock, which
// the kernel releases however the process ends.
func openState(dir string, d disk) (*state, error) {
	if err := makeDir(d, dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	s := &state{dir: dir, disk: d, lock: lock}
	for _, name := range []string{rootFile, intermediateFile, RootBundleFile} {
		if err := sweep(s.path(name)); err != nil {
			lock.Close()
			return nil, err
		}
	}
	return s, nil
}

// makeDir makes the directory, durably, when it is missing. In one that
// everybody may write to, anybody could put a root of his own.
func makeDir(d disk, dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return d.SyncDir(filepath.Dir(dir))
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s may be written to by everybody (mode %04o): run \"chmod o-w %s\"", dir, info.Mode().Perm(), dir)
	}
	return nil
}

func (s *state) close() error { return s.lock.Close() }

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// load reads an issuer. A missing file is fs.ErrNotExist, anything else that
// is wrong an error naming the file.
func (s *state) load(name string) (*issuer, error) {
	path := s.path(name)
	data, err := readState(path)
	if err != nil {
		return nil, err
	}
	i, err := parseIssuer(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

func (s *state) save(name string, i *issuer) error {
	data, err := i.encode()
	if err != nil {
		return err
	}
	if err := replaceFile(s.disk, s.path(name), data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", s.path(name), err)
	}
	return nil
}

// publish writes the public bundle when it differs from what is there.
func (s *state) publish(bundle []byte) error {
	path := s.path(RootBundleFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, bundle) {
		return nil
	}
	if err := replaceFile(s.disk, path, bundle, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// issuer is a certificate that signs others, with its key. Immutable.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

const keyPEMType = "PRIVATE KEY"

func (i *issuer) encode() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return nil, err
	}
	data := EncodeChain(i.cert)
	return append(data, pem.EncodeToMemory(&pem.Block{Type: keyPEMType, Bytes: key})...), nil
}

func parseIssuer(data []byte) (*issuer, error) {
	certBlock, rest := pem.Decode(data)
	if certBlock == nil || certBlock.Type != certificatePEMType {
		return nil, errors.New("want a CERTIFICATE block first")
	}
	keyBlock, rest := pem.Decode(rest)
	if keyBlock == nil || keyBlock.Type != keyPEMType {
		return nil, errors.New("want a PRIVATE KEY block second")
	}
	if len(bytes.TrimSpace(rest)) > 0 || bytes.Count(data, []byte(pemBegin)) != 2 {
		return nil, errors.New("want one certificate and its key only")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of type %T cannot sign", parsed)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("the private key is not the certificate's")
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the certificate is no authority's")
	}
	return &issuer{cert: cert, key: key}, nil
}
