package check

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/certs"
)

// identity checks the authority's certificates, their distribution, and what the
// node proxies hold.
func (r *runner) identity(p proxies) {
	r.category = "identity"
	roots := r.roots(p)
	if len(roots) == 0 {
		return
	}
	r.validity("the root certificate is valid", roots, rootLeft,
		"plan the change of the root: docs/operations.md says how")
	if r.cluster != nil {
		r.distribution()
	}
	r.held(p, roots)
}

// roots are those that the mesh's own namespace has, or, on a local mesh, those
// that came with the certificates.
func (r *runner) roots(p proxies) []*x509.Certificate {
	const name = "the root certificate can be read"
	if r.cluster == nil {
		for _, d := range p.dumps {
			if d == nil {
				continue
			}
			for _, c := range d.CertificateStatus {
				if roots, err := certs.ParseChain([]byte(c.Roots)); err == nil && len(roots) > 0 {
					return roots
				}
			}
		}
		return nil
	}
	cm, err := r.cluster.Client.Kubernetes.CoreV1().ConfigMaps(r.cluster.System).Get(r.ctx, rootConfigMap, metav1.GetOptions{})
	if err != nil {
		r.fail(name, "istiod writes it once it leads: see above", r.cluster.Client.Explain(err).Error())
		return nil
	}
	roots, err := certs.ParseChain([]byte(cm.Data["root-cert.pem"]))
	if err != nil || len(roots) == 0 {
		r.fail(name, "delete the ConfigMap: istiod writes it anew", fmt.Sprintf("ConfigMap %s/%s has no certificate in root-cert.pem", r.cluster.System, rootConfigMap))
		return nil
	}
	return roots
}

// validity judges certificates by the time that they have left.
func (r *runner) validity(name string, list []*x509.Certificate, warnLeft time.Duration, hint string) {
	var over, soon []string
	least := time.Duration(1<<63 - 1)
	for _, c := range list {
		left := c.NotAfter.Sub(r.opt.Now)
		least = min(least, left)
		who := c.Subject.String()
		if who == "" {
			who = "serial number " + certs.SerialText(c.SerialNumber)
		}
		switch {
		case left <= 0:
			over = append(over, fmt.Sprintf("%s ended on %s", who, c.NotAfter.UTC().Format(time.DateOnly)))
		case r.opt.Now.Before(c.NotBefore):
			over = append(over, fmt.Sprintf("%s begins on %s", who, c.NotBefore.UTC().Format(time.RFC3339)))
		case left < warnLeft:
			soon = append(soon, fmt.Sprintf("%s ends on %s", who, c.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	if len(over) > 0 {
		r.fail(name, hint, over...)
		return
	}
	r.unless(soon, Warned, fmt.Sprintf("%s (%s left)", name, days(least)), hint)
}

func days(d time.Duration) string {
	switch n := int(d.Hours() / 24); {
	case n > 1:
		return fmt.Sprintf("%d days", n)
	default:
		return d.Round(time.Minute).String()
	}
}

// distribution compares the root in every namespace with the authority's.
func (r *runner) distribution() {
	const name = "every namespace has the authority's root"
	k := r.cluster.Client.Kubernetes.CoreV1()
	namespaces, err := k.Namespaces().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	maps, err := k.ConfigMaps("").List(r.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + rootConfigMap})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	byNamespace := map[string]string{}
	for _, m := range maps.Items {
		byNamespace[m.Namespace] = m.Data["root-cert.pem"]
	}
	want := byNamespace[r.cluster.System]
	var wrong []string
	for _, ns := range namespaces.Items {
		pem, ok := byNamespace[ns.Name]
		switch {
		case ns.DeletionTimestamp != nil:
		case !ok:
			wrong = append(wrong, "namespace "+ns.Name+" has no ConfigMap "+rootConfigMap)
		case pem != want:
			wrong = append(wrong, "namespace "+ns.Name+" has another root")
		}
	}
	r.unless(wrong, Failed, fmt.Sprintf("%s (%d)", name, len(namespaces.Items)), "the leading istiod writes them within seconds; its log says what hinders it")
}

// held checks every certificate that the node proxies hold against the roots.
func (r *runner) held(p proxies, roots []*x509.Certificate) {
	const verify, state = "the workloads' certificates come from that root", "the workloads' certificates are renewed in time"
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	var foreign, failing []string
	var issuers []*x509.Certificate
	n := 0
	for i, d := range p.dumps {
		if d == nil {
			continue
		}
		for _, c := range d.CertificateStatus {
			who := fmt.Sprintf("%s on %s", c.Identity, p.all[i].Node)
			switch c.State {
			case certs.StateFailed, certs.StateOverdue, certs.StateExpired:
				failing = append(failing, fmt.Sprintf("%s: %s: %s", who, c.State, c.LastError))
			}
			chain, err := certs.ParseChain([]byte(c.Chain))
			if err != nil || len(chain) == 0 {
				continue
			}
			n++
			between := x509.NewCertPool()
			for _, x := range chain[1:] {
				between.AddCert(x)
				if !slices.ContainsFunc(issuers, func(o *x509.Certificate) bool { return bytes.Equal(o.Raw, x.Raw) }) {
					issuers = append(issuers, x)
				}
			}
			_, err = chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: r.opt.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if err != nil {
				foreign = append(foreign, fmt.Sprintf("%s: %v", who, err))
			}
		}
	}
	if len(issuers) > 0 {
		r.validity("the issuing certificate is valid", issuers, issuerLeft, "an authority of istiod's own renews it by itself: see its log; of a plugged-in one renew the Secret cacerts")
	}
	r.unless(foreign, Failed, fmt.Sprintf("%s (%d)", verify, n), "do all istiods share one authority (Secret istio-ca-secret, or cacerts)? A change of the root that was not finished looks like this too")
	r.unless(failing, Failed, state, "`meshctl cert status` shows them; the log of istiod says why it refused")
}
