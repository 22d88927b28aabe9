package authority

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/certs"
)

const (
	// PluggedInSecret is the authority that the operator brings, in Istio's name.
	PluggedInSecret = "cacerts"
	// OwnSecret is the authority that the control plane made, in Istio's name.
	OwnSecret = "istio-ca-secret"
	// secretType marks OwnSecret as Istio does.
	secretType = corev1.SecretType("istio.io/ca-root")
)

// Keys of a Secret of type kubernetes.io/tls, as cert-manager writes it.
const (
	tlsCertificateKey = corev1.TLSCertKey
	tlsPrivateKey     = corev1.TLSPrivateKeyKey
	tlsRootsKey       = corev1.ServiceAccountRootCAKey
)

// material reads a Secret in either form: ca-cert.pem, ca-key.pem,
// cert-chain.pem and root-cert.pem, or tls.crt, tls.key and ca.crt.
func material(secret *corev1.Secret) (certs.Material, error) {
	label := fmt.Sprintf("Secret %s/%s", secret.Namespace, secret.Name)
	part := func(key string) certs.Part { return certs.Part{Name: label + ": " + key, PEM: secret.Data[key]} }
	m := certs.Material{
		Certificate: part(certs.CertificatePart), Key: part(certs.KeyPart),
		Chain: part(certs.ChainPart), Roots: part(certs.RootsPart),
	}
	pem, tls := len(m.Certificate.PEM)+len(m.Key.PEM) > 0, len(secret.Data[tlsCertificateKey])+len(secret.Data[tlsPrivateKey]) > 0
	switch {
	case pem && tls:
		return m, fmt.Errorf("%s holds both %s and %s: leave one of the two forms out", label, certs.KeyPart, tlsPrivateKey)
	case tls:
		m = certs.Material{Certificate: part(tlsCertificateKey), Key: part(tlsPrivateKey), Roots: part(tlsRootsKey)}
	}
	if secret.Name == OwnSecret && len(m.Roots.PEM) == 0 {
		m.Roots = m.Certificate // Istio leaves out the root of an authority that is its own
	}
	for _, p := range []certs.Part{m.Certificate, m.Key, m.Roots} {
		if len(p.PEM) == 0 {
			return m, fmt.Errorf("%s is missing or empty", p.Name)
		}
	}
	return m, nil
}

// secretData is the other way round, for the authority's own Secret.
func secretData(m certs.Material) map[string][]byte {
	return map[string][]byte{
		certs.CertificatePart: m.Certificate.PEM,
		certs.KeyPart:         m.Key.PEM,
		certs.ChainPart:       m.Chain.PEM,
		certs.RootsPart:       m.Roots.PEM,
	}
}
