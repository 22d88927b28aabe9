package authority

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/istiod-lite/rootcert"
)

// trusted returns the roots that the mesh trusts already, none before its first
// start: those that a leader wrote into the control plane's own namespace. It
// lists, since that right is there for this name.
func (s *Store) trusted(ctx context.Context) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := s.cfg.Client.CoreV1().ConfigMaps(s.cfg.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, rootcert.Name).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", s.cfg.Namespace, rootcert.Name, err)
	}
	for _, cm := range list.Items {
		if roots, err := certs.ParseChain([]byte(cm.Data[rootcert.Key])); err == nil {
			return roots, nil
		}
	}
	return nil, nil // a text that is no certificate has nobody trust anything
}

// checkTrusted refuses an authority that the proxies of a running mesh would not
// believe. A replica that started with it all the same would divide the mesh:
// half of the certificates of one root, half of the other.
func (s *Store) checkTrusted(ctx context.Context, a *certs.Authority, secret string) error {
	roots, err := s.trusted(ctx)
	if err != nil || len(roots) == 0 {
		return err
	}
	chain := a.Chain()
	if root := chain[len(chain)-1]; !slices.ContainsFunc(roots, root.Equal) {
		return fmt.Errorf("the root of Secret %s/%s (serial %s) is not among those that the mesh trusts, which are in ConfigMap %s: %s",
			s.cfg.Namespace, secret, certs.SerialText(root.SerialNumber), rootcert.Name, s.wayOut())
	}
	return nil
}

// checkNew refuses to make an authority for a mesh that has had one.
func (s *Store) checkNew(ctx context.Context) error {
	roots, err := s.trusted(ctx)
	if err != nil || len(roots) == 0 {
		return err
	}
	return fmt.Errorf("neither Secret %s nor %s is in namespace %s, although ConfigMap %s holds the root of an authority: %s",
		PluggedInSecret, OwnSecret, s.cfg.Namespace, rootcert.Name, s.wayOut())
}

func (s *Store) wayOut() string {
	return fmt.Sprintf("put the Secret back as it was; or, to begin anew with another root, end all istiod pods, "+
		"delete the ConfigMap in namespace %s and start them, and the ztunnels after them", s.cfg.Namespace)
}
