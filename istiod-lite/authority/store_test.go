package authority_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/kubetest"
	"github.com/tulle-mesh/tulle/istiod-lite/authority"
)

// bound is how long a test waits for what must happen; reaching it fails.
const bound = 60 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a namespace whose account istiod has the rights that a store needs.
type place struct {
	t      *testing.T
	admin  kubernetes.Interface
	istiod kubernetes.Interface
	ns     string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	api := kubetest.Shared(t, kubetest.Options{})
	p := &place{t: t, admin: api.Client, ns: api.Namespace(t, nil)}
	_, err := p.admin.RbacV1().Roles(p.ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "istiod"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"istio-ca-secret"}, Verbs: []string{"get", "list", "watch", "create", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"cacerts"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"istio-ca-root-cert"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{})
	must(t, err)
	_, err = p.admin.RbacV1().RoleBindings(p.ns).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "istiod"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "istiod"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "istiod", Namespace: p.ns}}}, metav1.CreateOptions{})
	must(t, err)
	p.istiod, err = kubernetes.NewForConfig(api.As(p.ns, "istiod"))
	must(t, err)
	p.await("the rights to take effect", func() bool {
		_, err := p.istiod.CoreV1().Secrets(p.ns).List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=cacerts"})
		return err == nil
	})
	return p
}

func (p *place) await(what string, cond func() bool) {
	p.t.Helper()
	end := time.Now().Add(bound)
	for !cond() {
		if time.Now().After(end) {
			p.t.Fatalf("waited %v for %s", bound, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// replica is one store, with what it says.
type replica struct {
	*place
	store *authority.Store
	logs  *observer.ObservedLogs
	reg   *prometheus.Registry
}

func (p *place) replica() *replica {
	p.t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &replica{place: p, logs: logs, reg: prometheus.NewRegistry()}
	var err error
	r.store, err = authority.New(authority.Config{
		Client: p.istiod, Namespace: p.ns, Authority: certs.AuthorityConfig{TrustDomain: spiffeid.RequireTrustDomainFromString("cluster.local")},
		Logger: zap.New(core), Registerer: r.reg,
	})
	must(p.t, err)
	p.t.Cleanup(func() {
		for _, e := range logs.All() {
			if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "PRIVATE KEY") {
				p.t.Errorf("a key is in the log: %s", e.Message)
			}
		}
	})
	return r
}

func (r *replica) open() *certs.Authority {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), bound)
	defer cancel()
	a, err := r.store.Open(ctx)
	if err != nil {
		r.t.Fatalf("%v: %v", err, r.logs.All())
	}
	return a
}

// run follows the Secrets until the end of the test.
func (r *replica) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.store.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

func (r *replica) said(text string) bool { return r.logs.FilterMessageSnippet(text).Len() > 0 }

// failed reports whether an error with the text was logged.
func (r *replica) failed(text string) bool {
	return slices.ContainsFunc(r.logs.All(), func(e observer.LoggedEntry) bool {
		return strings.Contains(fmt.Sprint(e.ContextMap()["error"]), text)
	})
}

func (r *replica) refused() float64 {
	families, err := r.reg.Gather()
	must(r.t, err)
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

func (p *place) secret(name string) *corev1.Secret {
	p.t.Helper()
	s, err := p.admin.CoreV1().Secrets(p.ns).Get(p.t.Context(), name, metav1.GetOptions{})
	must(p.t, err)
	return s
}

// plugIn writes cacerts, or replaces it.
func (p *place) plugIn(data map[string][]byte) {
	p.t.Helper()
	secrets := p.admin.CoreV1().Secrets(p.ns)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cacerts"}, Data: data}
	if _, err := secrets.Update(p.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		_, err = secrets.Create(p.t.Context(), s, metav1.CreateOptions{})
		must(p.t, err)
	}
}

func istioForm(t *testing.T, signer *forge.Authority) map[string][]byte {
	return map[string][]byte{
		"ca-cert.pem": certs.EncodeChain(signer.Cert), "ca-key.pem": key(t, signer),
		"cert-chain.pem": certs.EncodeChain(append([]*x509.Certificate{signer.Cert}, signer.Above...)...),
		"root-cert.pem":  certs.EncodeChain(signer.Root),
	}
}

func key(t *testing.T, signer *forge.Authority) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(signer.Key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestReplicasThatStartTogetherHaveOneRoot starts them against an empty cluster.
func TestReplicasThatStartTogetherHaveOneRoot(t *testing.T) {
	p := newPlace(t)
	const replicas = 5
	roots := make([]string, replicas)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range replicas {
		r := p.replica()
		wg.Go(func() {
			<-start
			roots[i] = string(r.open().BundlePEM())
		})
	}
	close(start)
	wg.Wait()
	late := string(p.replica().open().BundlePEM())
	for i, root := range roots {
		if root == "" || root != late {
			t.Errorf("replica %d has the root\n%s\na later one\n%s", i, root, late)
		}
	}
	if s := p.secret("istio-ca-secret"); s.Type != "istio.io/ca-root" || string(s.Data["root-cert.pem"]) != late {
		t.Errorf("Secret of type %s with another root", s.Type)
	}
}

// TestADeletedSecretIsWrittenAgain has the key outlive it in memory.
func TestADeletedSecretIsWrittenAgain(t *testing.T) {
	p := newPlace(t)
	first, second := p.replica(), p.replica()
	root := string(first.open().BundlePEM())
	second.open()
	first.run()
	second.run()
	before := p.secret("istio-ca-secret")
	must(t, p.admin.CoreV1().Secrets(p.ns).Delete(t.Context(), "istio-ca-secret", metav1.DeleteOptions{}))
	p.await("the Secret to be back", func() bool {
		s, err := p.admin.CoreV1().Secrets(p.ns).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{})
		return err == nil && s.UID != before.UID && string(s.Data["ca-key.pem"]) == string(before.Data["ca-key.pem"])
	})
	if again := string(p.replica().open().BundlePEM()); again != root {
		t.Error("a replica that starts after the deletion has another root")
	}
}

// TestAReplicaThatStartsKeepsToTheRootThatTheMeshTrusts changes the Secrets under a
// mesh whose leader has published its root.
func TestAReplicaThatStartsKeepsToTheRootThatTheMeshTrusts(t *testing.T) {
	p := newPlace(t)
	root := p.replica().open().BundlePEM()
	_, err := p.admin.CoreV1().ConfigMaps(p.ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"}, Data: map[string]string{"root-cert.pem": string(root)}}, metav1.CreateOptions{})
	must(t, err)
	secrets := p.admin.CoreV1().Secrets(p.ns)
	begin := func() (*replica, chan *certs.Authority) {
		r, opened := p.replica(), make(chan *certs.Authority, 1)
		go func() { opened <- r.open() }()
		return r, opened
	}

	p.plugIn(istioForm(t, forge.Root(t, "cluster.local").Intermediate(t)))
	r, first := begin()
	p.await("a plugged-in authority of another root to be refused", func() bool { return r.failed("/cacerts (serial") })
	must(t, secrets.Delete(t.Context(), "cacerts", metav1.DeleteOptions{}))

	own := p.secret("istio-ca-secret")
	must(t, secrets.Delete(t.Context(), own.Name, metav1.DeleteOptions{}))
	r, second := begin()
	p.await("the loss of the Secret to be told", func() bool { return r.failed("neither Secret cacerts nor istio-ca-secret") })
	own.ResourceVersion, own.UID = "", ""
	_, err = secrets.Create(t.Context(), own, metav1.CreateOptions{})
	must(t, err)
	for _, opened := range []chan *certs.Authority{first, second} {
		if a := <-opened; string(a.BundlePEM()) != string(root) {
			t.Error("a replica has another root")
		}
	}
}

func TestAPluggedInAuthorityIsTakenAndItsIntermediateReplaced(t *testing.T) {
	p := newPlace(t)
	root := forge.Root(t, "cluster.local")
	one, two := root.Intermediate(t), root.Intermediate(t)
	p.plugIn(istioForm(t, one))
	r := p.replica()
	a := r.open()
	if !a.Chain()[0].Equal(one.Cert) {
		t.Fatal("another authority than the plugged-in one signs")
	}
	if _, err := p.admin.CoreV1().Secrets(p.ns).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{}); err == nil {
		t.Error("an authority of its own was made beside the plugged-in one")
	}
	r.run()
	p.plugIn(map[string][]byte{"tls.crt": certs.EncodeChain(two.Cert), "tls.key": key(t, two), "ca.crt": certs.EncodeChain(root.Cert)})
	p.await("the second intermediate to sign", func() bool { return a.Chain()[0].Equal(two.Cert) })

	// What cannot be taken changes nothing, and says so.
	p.plugIn(istioForm(t, forge.Root(t, "cluster.local").Intermediate(t)))
	p.await("the refusal", func() bool { return r.refused() == 1 })
	if !a.Chain()[0].Equal(two.Cert) || !r.said("not taken over") {
		t.Errorf("other roots are in force, or nothing is said: %v", r.logs.All())
	}
	p.plugIn(istioForm(t, one))
	p.await("the first to sign again", func() bool { return a.Chain()[0].Equal(one.Cert) && r.refused() == 0 })
	must(t, p.admin.CoreV1().Secrets(p.ns).Delete(t.Context(), "cacerts", metav1.DeleteOptions{}))
	p.await("the loss to be told", func() bool { return r.refused() == 1 && r.said("plugged-in Secret was deleted") })
	if !a.Chain()[0].Equal(one.Cert) {
		t.Error("the deletion changed what signs")
	}
}

// TestARefusedSecretIsWaitedFor has the store name what is wrong, make no
// authority of its own instead, and begin when it is put right.
func TestARefusedSecretIsWaitedFor(t *testing.T) {
	p := newPlace(t)
	signer := forge.Root(t, "cluster.local").Intermediate(t)
	both := istioForm(t, signer)
	both["tls.key"] = both["ca-key.pem"]
	for _, tt := range []struct {
		data map[string][]byte
		want string
	}{
		{both, "leave one of the two forms out"},
		{map[string][]byte{"ca-cert.pem": certs.EncodeChain(signer.Cert)}, "/cacerts: ca-key.pem is missing"},
		{map[string][]byte{"tls.crt": certs.EncodeChain(signer.Cert), "tls.key": key(t, signer)}, "/cacerts: ca.crt is missing"},
	} {
		p.plugIn(tt.data)
		r := p.replica()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := r.store.Open(ctx); done <- err }()
		p.await(tt.want, func() bool {
			return r.failed(tt.want)
		})
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%s: opened", tt.want)
		}
	}
	r := p.replica()
	opened := make(chan *certs.Authority, 1)
	go func() { opened <- r.open() }()
	p.await("the first attempt", func() bool { return r.said("no key yet") })
	p.plugIn(istioForm(t, signer))
	select {
	case a := <-opened:
		if !a.Chain()[0].Equal(signer.Cert) {
			t.Error("another authority signs")
		}
	case <-time.After(bound):
		t.Fatal("not opened after the Secret was put right")
	}
}

// TestIstiosOwnSecretIsTaken has neither chain nor root in it.
func TestIstiosOwnSecretIsTaken(t *testing.T) {
	p := newPlace(t)
	root := forge.Root(t, "cluster.local", func(c *x509.Certificate) { c.URIs = nil })
	_, err := p.admin.CoreV1().Secrets(p.ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-secret"}, Type: "istio.io/ca-root",
		Data: map[string][]byte{"ca-cert.pem": certs.EncodeChain(root.Cert), "ca-key.pem": key(t, root), "cert-chain.pem": {}, "root-cert.pem": {}}}, metav1.CreateOptions{})
	must(t, err)
	if a := p.replica().open(); !a.Chain()[0].Equal(root.Cert) {
		t.Error("another authority signs")
	}
}
