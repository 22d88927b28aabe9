package app_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/certs/caclient"
)

// TestAClusterIsServedFromNothing starts with an empty cluster and the rights of
// the manifests, and ends with a proxy that knows the mesh and has a certificate.
func TestAClusterIsServedFromNothing(t *testing.T) {
	c := newCluster(t)
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"istio.io/dataplane-mode": "ambient"}}})
	c.account("shop", "web")
	ztunnel := c.pod(system, "ztunnel-1", "ztunnel", "n1", "10.0.1.1")
	web := c.pod("shop", "web-0", "web", "n1", "10.0.1.2")
	r := c.replica("istiod-1")
	r.awaitReady()

	m := r.connect(c.tokenFile(ztunnel))
	m.synced()
	m.await("the pod", func(s map[string]proto.Message) bool { return workload(s["Kubernetes//Pod/shop/web-0"]) != nil })

	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/web")
	svid, bundle, err := r.certificates(c.tokenFile(ztunnel), false).Sign(t.Context(), id)
	must(t, err)
	if svid.ID != id || string(certs.EncodeChain(bundle.X509Authorities()...)) != r.root("shop") {
		t.Errorf("certificate of %v, or other roots than the ConfigMap's", svid.ID)
	}
	// A pod may ask for its own certificate, and may not subscribe.
	if _, _, err := r.certificates(c.tokenFile(web), true).Sign(t.Context(), id); err != nil {
		t.Errorf("own certificate: %v", err)
	}

	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\ncitadel_server_success_cert_issuance_count 2\n") ||
		!strings.Contains(metrics, "istiod_uptime_seconds ") {
		t.Errorf("metrics:\n%s", metrics)
	}
	if code, _ := r.get("/healthz/live"); code != http.StatusOK {
		t.Errorf("live = %d", code)
	}
	if code, _ := r.get("/config_dump"); code != http.StatusNotFound {
		t.Errorf("others can read /config_dump: %d", code)
	}
	secret, err := c.Client.CoreV1().Secrets(system).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{})
	must(t, err)
	block, _ := pem.Decode(secret.Data["ca-key.pem"])
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Error(err)
	}
	for _, e := range r.logs.All() {
		for _, v := range e.ContextMap() {
			if s, ok := v.(string); ok && strings.Contains(s, "PRIVATE KEY") {
				t.Errorf("a key is in the log: %s", e.Message)
			}
		}
	}
}

// TestANodeGetsTheCertificatesOfItsPodsAndNoOthers has real tokens that the API
// server made for pods.
func TestANodeGetsTheCertificatesOfItsPodsAndNoOthers(t *testing.T) {
	c := newCluster(t)
	c.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	for _, account := range []string{"web", "db", "done"} {
		c.account("shop", account)
	}
	one := c.pod(system, "ztunnel-1", "ztunnel", "n1", "10.0.1.1")
	two := c.pod(system, "ztunnel-2", "ztunnel", "n2", "10.0.2.1")
	gone := c.pod(system, "ztunnel-3", "ztunnel", "n3", "10.0.3.1")
	web := c.pod("shop", "web-0", "web", "n1", "10.0.1.2")
	c.pod("shop", "db-0", "db", "n2", "10.0.2.2")
	c.pod("shop", "web-3", "web", "n3", "10.0.3.2")
	done := c.pod("shop", "done-0", "done", "n1", "10.0.1.3")
	done.Status.Phase = corev1.PodSucceeded
	_, err := c.Client.CoreV1().Pods("shop").UpdateStatus(t.Context(), done, metav1.UpdateOptions{})
	must(t, err)
	unbound, err := c.AccountToken(t.Context(), system, "ztunnel")
	must(t, err)
	unused := c.tokenFile(gone) // never shown before its pod goes
	used := c.tokenFile(gone)
	r := c.replica("istiod-1")
	r.awaitReady()

	ask := func(token, account string, own bool) codes.Code {
		t.Helper()
		_, _, err := r.certificates(token, own).Sign(t.Context(), spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/"+account))
		var refused *caclient.Error
		switch {
		case err == nil:
			return codes.OK
		case !errors.As(err, &refused):
			t.Fatal(err)
		}
		for _, word := range []string{"web", "db", "n1", "n2", "audience"} {
			if msg := refused.Err.Error(); strings.Contains(msg, word) {
				t.Errorf("the caller is told %q", msg)
			}
		}
		return refused.Code
	}
	if code := ask(used, "web", false); code != codes.OK {
		t.Fatalf("before its pod goes: %v", code)
	}
	zero := int64(0)
	must(t, c.Client.CoreV1().Pods(system).Delete(t.Context(), "ztunnel-3", metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	again := c.pod(system, "ztunnel-3", "ztunnel", "n3", "10.0.3.3") // of the same name

	for _, tt := range []struct {
		name, token, account string
		own                  bool
		code                 codes.Code
		reason               string // of the refusal, in log and metric
	}{
		{"a pod of the node", c.tokenFile(one), "web", false, codes.OK, ""},
		{"a pod of another node", c.tokenFile(one), "db", false, codes.PermissionDenied, "not_on_node"},
		{"a pod that has ended", c.tokenFile(one), "done", false, codes.PermissionDenied, "not_on_node"},
		{"nobody's pod", c.tokenFile(two), "nobody", false, codes.PermissionDenied, "not_on_node"},
		{"another audience", c.tokenFile(one, apiAudience), "web", false, codes.Unauthenticated, ""},
		{"a token bound to no pod", tokenPath(t, unbound), "web", false, codes.PermissionDenied, "token_without_node"},
		{"a pod that is no node proxy", c.tokenFile(web), "db", false, codes.PermissionDenied, "not_a_node_account"},
		{"a pod's own", c.tokenFile(web), "web", true, codes.OK, ""},
		{"the token of a deleted pod", unused, "web", false, codes.Unauthenticated, ""},
		{"the remembered token of a deleted pod", used, "web", false, codes.PermissionDenied, "caller_pod"},
		{"the pod in its place", c.tokenFile(again), "web", false, codes.OK, ""},
	} {
		if code := ask(tt.token, tt.account, tt.own); code != tt.code {
			t.Errorf("%s: %v, want %v", tt.name, code, tt.code)
		}
		if tt.reason == "" {
			continue
		}
		if _, metrics := r.get("/metrics"); !strings.Contains(metrics, fmt.Sprintf("citadel_server_csr_sign_err_count{reason=%q}", tt.reason)) {
			t.Errorf("%s: no metric with the reason %s", tt.name, tt.reason)
		}
		told := false
		for _, e := range r.logs.All() {
			told = told || e.ContextMap()["reason"] == tt.reason
		}
		if !told {
			t.Errorf("%s: no line of the log has the reason %s", tt.name, tt.reason)
		}
	}

	// The state of the mesh is for node proxies.
	m := r.connect(c.tokenFile(web))
	deadline(t, "the subscription to be refused", func() bool {
		return strings.Contains(m.client.Status().LastError, "PermissionDenied")
	})
}

// TestReplicasShareTheWork starts two at once against an empty cluster: both
// serve under one root, one writes, and the other goes on when it ends.
func TestReplicasShareTheWork(t *testing.T) {
	c := newCluster(t)
	ztunnel := c.pod(system, "ztunnel-1", "ztunnel", "n1", "10.0.1.1")
	first, second := c.replica("istiod-1"), c.replica("istiod-2")
	for _, r := range []*replica{first, second} {
		r.awaitReady()
		m := r.connect(c.tokenFile(ztunnel)) // trusts the one root
		m.synced()
	}
	leads := func(r *replica) bool {
		_, metrics := r.get("/metrics")
		return strings.Contains(metrics, "\nistiod_leader 1\n")
	}
	deadline(t, "one to lead", func() bool { return leads(first) || leads(second) })
	if !leads(first) {
		first, second = second, first
	}
	if leads(second) {
		t.Error("both lead")
	}
	service := func(name string) {
		_, err := c.Client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"istio.io/use-waypoint": "wp"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		must(t, err)
		deadline(t, "the condition of "+name, func() bool {
			s, err := c.Client.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && len(s.Status.Conditions) == 1 && s.Status.Conditions[0].Reason == "WaypointIsNotReady"
		})
	}
	service("before")
	root := c.root("default")
	first.stop()
	deadline(t, "the other to lead", func() bool { return leads(second) })
	must(t, c.Client.CoreV1().ConfigMaps("default").Delete(t.Context(), "istio-ca-root-cert", metav1.DeleteOptions{}))
	if again := c.root("default"); again != root {
		t.Error("the root has changed with the leader")
	}
	service("after")
	for _, e := range second.logs.All() {
		if e.LoggerName == "status" && e.ContextMap()["object"] == "Service default/before" {
			t.Errorf("the second leader wrote what the first had written: %s", e.Message)
		}
	}
}
