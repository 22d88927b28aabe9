package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/backoff"
)

// Config is what a [Store] needs. Client, Namespace and Authority must be set.
type Config struct {
	Client kubernetes.Interface
	// Namespace is where the Secrets are: the control plane's own.
	Namespace string
	// Authority says for whom and how long certificates are signed.
	Authority  certs.AuthorityConfig
	Logger     *zap.Logger           // may be nil
	Registerer prometheus.Registerer // may be nil
}

// Store keeps an authority in step with its Secret. Call Open once, and Run
// after it.
type Store struct {
	cfg     Config
	secrets typedcorev1.SecretInterface
	// writer is this process's field manager. Every process has another, so
	// that the API server takes a second first writer for a conflict.
	writer    string
	authority *certs.Authority
	inForce   certs.Material
	from      string // the Secret that inForce is of
	refused   prometheus.Gauge
}

// New checks cfg. It asks nothing of the API server yet.
func New(cfg Config) (*Store, error) {
	if cfg.Client == nil || cfg.Namespace == "" || cfg.Authority.TrustDomain.IsZero() {
		return nil, errors.New("authority: no client, namespace or trust domain")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	s := &Store{
		cfg: cfg, secrets: cfg.Client.CoreV1().Secrets(cfg.Namespace), writer: "istiod-lite-" + rand.Text(),
		refused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "istiod_ca_secret_refused",
			Help: "1 while the Secret of the certificate authority cannot be taken over, and what was in force before is used on.",
		}),
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(s.refused); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Open returns the authority once its key is at hand: read, or made when the
// cluster has none. It retries until ctx ends, because an operator can mend both
// the API server and the Secret, and says in the log what it waits for.
func (s *Store) Open(ctx context.Context) (*certs.Authority, error) {
	pauses := backoff.New(retryFirst, retryMost)
	for {
		err := s.open(ctx)
		if err == nil {
			s.cfg.Logger.Info("authority opened", append(authorityFields(s.authority), zap.String("secret", s.from))...)
			return s.authority, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		pause := pauses.Next()
		s.cfg.Logger.Error("the authority has no key yet", zap.Error(err), zap.Duration("retry", pause))
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func (s *Store) open(ctx context.Context) error {
	secret, err := s.read(ctx, PluggedInSecret)
	if apierrors.IsNotFound(err) {
		secret, err = s.read(ctx, OwnSecret)
	}
	if apierrors.IsNotFound(err) {
		secret, err = s.makeOwn(ctx)
	}
	if err != nil {
		return err
	}
	m, err := material(secret)
	if err != nil {
		return err
	}
	a, err := certs.NewAuthority(m, s.cfg.Authority)
	if err != nil {
		return err
	}
	if err := s.checkTrusted(ctx, a, secret.Name); err != nil {
		return err
	}
	s.authority, s.inForce, s.from = a, m, secret.Name
	return nil
}

func (s *Store) read(ctx context.Context, name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret, err := s.secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", s.cfg.Namespace, name, err)
	}
	return secret, nil
}

// makeOwn makes a root and writes it, or reads what another replica has written
// in the meantime.
func (s *Store) makeOwn(ctx context.Context) (*corev1.Secret, error) {
	if err := s.checkNew(ctx); err != nil {
		return nil, err
	}
	m, err := certs.NewMaterial(s.cfg.Authority)
	if err != nil {
		return nil, err
	}
	secret, err := s.write(ctx, m)
	if apierrors.IsConflict(err) {
		s.cfg.Logger.Info("another replica has made the authority", zap.String("secret", OwnSecret))
		return s.read(ctx, OwnSecret)
	}
	if err == nil {
		s.cfg.Logger.Info("root made", zap.String("secret", OwnSecret))
	}
	return secret, err
}

// write brings about the Secret. It fails with a conflict when there is one with
// another content. Server-side apply rather than create, because the right to it
// can be given for this one name; with an unnamed right to create Secrets one
// could have oneself given the token of any account of the namespace.
func (s *Store) write(ctx context.Context, m certs.Material) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret, err := s.secrets.Apply(ctx, applycorev1.Secret(OwnSecret, s.cfg.Namespace).WithType(secretType).WithData(secretData(m)),
		metav1.ApplyOptions{FieldManager: s.writer})
	if err != nil {
		return nil, fmt.Errorf("write Secret %s/%s: %w", s.cfg.Namespace, OwnSecret, err)
	}
	return secret, nil
}

// authorityFields tell of an authority without its key.
func authorityFields(a *certs.Authority) []zap.Field {
	chain := a.Chain()
	signer, root := chain[0], chain[len(chain)-1]
	return []zap.Field{
		zap.String("signer", certs.SerialText(signer.SerialNumber)), zap.Time("not_after", signer.NotAfter),
		zap.String("root", certs.SerialText(root.SerialNumber)), zap.Time("root_not_after", root.NotAfter),
	}
}
