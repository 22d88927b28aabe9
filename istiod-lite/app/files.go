package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// newFiles is a mesh without a cluster: objects in a directory, the authority in
// another, tokens signed by the keys of the settings.
func newFiles(cfg config.Config, log *zap.Logger, registry prometheus.Registerer) (*backend, error) {
	var keys []*nodetoken.PublicKey
	for _, path := range cfg.TokenKeys {
		key, err := nodetoken.LoadPublic(path)
		if err != nil {
			return nil, fmt.Errorf("--token-key: %w", err)
		}
		keys = append(keys, key)
	}
	src, err := file.New(file.Config{Path: cfg.ConfigDir, RootNamespace: cfg.RootNamespace, Logger: log.Named("config"), Registerer: registry})
	if err != nil {
		return nil, err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("--trust-domain: %w", err)
	}
	authority, err := certs.OpenAuthority(cfg.StateDir, certs.AuthorityConfig{TrustDomain: trustDomain, Logger: log.Named("ca")})
	if err != nil {
		return nil, fmt.Errorf("--state-dir %s: %w", cfg.StateDir, err)
	}
	closeAuthority := func() {
		if err := authority.Close(); err != nil {
			log.Warn("close authority", zap.Error(err))
		}
	}
	if cfg.RootOut != "" {
		if err := writeFile(cfg.RootOut, authority.BundlePEM()); err != nil {
			closeAuthority()
			return nil, fmt.Errorf("--root-out: %w", err)
		}
	}
	return &backend{
		source:        src,
		options:       translateOptions(cfg),
		authenticator: ca.TokenAuthenticator{Verifier: nodetoken.Verifier{Keys: keys}},
		placement:     placement{src},
		open:          func(context.Context) (*certs.Authority, error) { return authority, nil },
		warnings:      (&status.Warner{Decider: status.Decider{Options: translateOptions(cfg)}}).With,
		close:         closeAuthority,
		describe:      []zap.Field{zap.String("config", cfg.ConfigDir), zap.String("root", cfg.RootFile())},
	}, nil
}

func translateOptions(cfg config.Config) translate.Options {
	return translate.Options{
		TrustDomain: cfg.TrustDomain, ClusterID: cfg.ClusterID, Network: cfg.Network,
		RootNamespace: cfg.RootNamespace, DomainSuffix: cfg.DomainSuffix,
	}
}

// writeFile replaces path in one step, so that no client reads half of it.
func writeFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".root-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
