package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
)

func metric(r *prometheus.Registry, line string) bool {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return strings.Contains("\n"+w.Body.String(), "\n"+line+"\n")
}

func csrWith(t *testing.T, uri string, dns ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	u, err := url.Parse(uri)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{u}, DNSNames: dns}, key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func impersonate(value any) *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": value})
	if err != nil {
		panic(err)
	}
	return s
}

func TestWhoGetsWhich(t *testing.T) {
	const web = "spiffe://cluster.local/ns/shop/sa/web"
	node := ztunnelA
	elsewhere, homeless, app := node, node, node
	elsewhere.Node = "node-b"
	homeless.Node = ""
	app.Namespace, app.ServiceAccount = "shop", "web"
	sameName := node
	sameName.Namespace = "shop"

	for _, tt := range []struct {
		name     string
		caller   nodetoken.Claims
		csr      string
		metadata *structpb.Struct
		code     codes.Code
		reason   string // of the metric and the log; "" for issued
		log      string // the log's error says this
	}{
		{name: "a pod on the caller's node", caller: node, csr: csrWith(t, web), metadata: impersonate(web)},
		{name: "the caller's own identity", caller: app, csr: csrWith(t, web)},
		{name: "a node proxy's own identity", caller: node, csr: csrWith(t, "spiffe://cluster.local/ns/istio-system/sa/ztunnel")},

		{name: "a pod on another node", caller: elsewhere, csr: csrWith(t, web), metadata: impersonate(web),
			code: codes.PermissionDenied, reason: "not_on_node", log: "shop/web is known to run on node node-b"},
		{name: "an account without a pod", caller: node, csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/admin"), metadata: impersonate("spiffe://cluster.local/ns/shop/sa/admin"),
			code: codes.PermissionDenied, reason: "not_on_node", log: "shop/admin"},
		{name: "an application that impersonates", caller: app, csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/api"), metadata: impersonate("spiffe://cluster.local/ns/shop/sa/api"),
			code: codes.PermissionDenied, reason: "not_a_node_account", log: "shop/web is no node account"},
		{name: "an application that impersonates itself", caller: app, csr: csrWith(t, web), metadata: impersonate(web),
			code: codes.PermissionDenied, reason: "not_a_node_account", log: "shop/web is no node account"},
		{name: "a ztunnel of another namespace", caller: sameName, csr: csrWith(t, web), metadata: impersonate(web),
			code: codes.PermissionDenied, reason: "not_a_node_account", log: "shop/ztunnel is no node account"},
		{name: "a token bound to no node", caller: homeless, csr: csrWith(t, web), metadata: impersonate(web),
			code: codes.PermissionDenied, reason: "token_without_node", log: "names no node"},
		{name: "a foreign trust domain", caller: node, csr: csrWith(t, "spiffe://example.org/ns/shop/sa/web"), metadata: impersonate("spiffe://example.org/ns/shop/sa/web"),
			code: codes.PermissionDenied, reason: "foreign_trust_domain", log: "example.org"},

		{name: "another identity in the request than asked for", caller: node, csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/api"), metadata: impersonate(web),
			code: codes.InvalidArgument, reason: "wrong_identity", log: "granted is " + web},
		{name: "another identity in the request than the own", caller: app, csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/api"),
			code: codes.InvalidArgument, reason: "wrong_identity", log: "granted is " + web},
		{name: "a DNS name in the request", caller: node, csr: csrWith(t, web, "istiod.istio-system.svc"), metadata: impersonate(web),
			code: codes.InvalidArgument, reason: "bad_name", log: "1 DNS"},
		{name: "no request", caller: node, metadata: impersonate(web),
			code: codes.InvalidArgument, reason: "malformed", log: "no PEM block"},
		{name: "a huge request", caller: node, csr: strings.Repeat("a", 1<<20), metadata: impersonate(web),
			code: codes.InvalidArgument, reason: "too_large", log: "1048576 bytes"},
		{name: "an identity that is a number", caller: node, csr: csrWith(t, web), metadata: impersonate(1),
			code: codes.InvalidArgument, reason: "bad_request", log: "not a string"},
		{name: "an empty identity", caller: node, csr: csrWith(t, web), metadata: impersonate(""),
			code: codes.InvalidArgument, reason: "bad_request", log: "cannot be empty"},
		{name: "an identity of endless length", caller: node, csr: csrWith(t, web), metadata: impersonate("spiffe://cluster.local/" + strings.Repeat("a", 1<<20)),
			code: codes.InvalidArgument, reason: "bad_request", log: "at most 2048"},
		{name: "no SPIFFE ID", caller: node, csr: csrWith(t, web), metadata: impersonate("shop/web"),
			code: codes.InvalidArgument, reason: "bad_request", log: "scheme"},
		{name: "a SPIFFE ID of another shape", caller: node, csr: csrWith(t, "spiffe://cluster.local/shop/web"), metadata: impersonate("spiffe://cluster.local/shop/web"),
			code: codes.InvalidArgument, reason: "bad_request", log: "not of the form"},
		{name: "a SPIFFE ID with more", caller: node, csr: csrWith(t, web+"/x"), metadata: impersonate(web + "/x"),
			code: codes.InvalidArgument, reason: "bad_request", log: "not of the form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			p := startControlPlane(t, ca.Config{Placement: placement{"node-a/shop/web": true}, PlacementWait: -1, Logger: zap.New(core)})
			ctx := withToken(t, p, tt.caller)
			resp, err := auth.NewIstioCertificateServiceClient(p.dial(t)).CreateCertificate(ctx,
				&auth.IstioCertificateRequest{Csr: tt.csr, Metadata: tt.metadata})
			if status.Code(err) != tt.code {
				t.Fatalf("code %s (%v), want %s", status.Code(err), err, tt.code)
			}
			if !metric(p.registry, "citadel_server_csr_count 1") {
				t.Error("the request is not counted")
			}
			entries := logs.All()
			if len(entries) != 1 {
				t.Fatalf("%d log lines", len(entries))
			}
			fields := entries[0].ContextMap()
			if fields["caller"] != tt.caller.Namespace+"/"+tt.caller.ServiceAccount || fields["node"] != tt.caller.Node {
				t.Errorf("log does not say who asked: %v", fields)
			}
			if tt.reason == "" {
				if len(resp.GetCertChain()) != 3 || entries[0].Message != "certificate issued" || fields["serial"] == "" {
					t.Errorf("chain of %d, log %q %v", len(resp.GetCertChain()), entries[0].Message, fields)
				}
				if !metric(p.registry, "citadel_server_success_cert_issuance_count 1") {
					t.Error("the certificate is not counted")
				}
				return
			}
			if !metric(p.registry, `citadel_server_csr_sign_err_count{reason="`+tt.reason+`"} 1`) {
				t.Errorf("the refusal is not counted as %s", tt.reason)
			}
			if why, _ := fields["error"].(string); fields["reason"] != tt.reason || !strings.Contains(why, tt.log) {
				t.Errorf("log %v, want reason %s and an error saying %q", fields, tt.reason, tt.log)
			}
			// The caller learns nothing of it.
			for _, secret := range []string{"node", "shop", "cluster.local", "DNS", tt.reason} {
				if message := status.Convert(err).Message(); strings.Contains(message, secret) {
					t.Errorf("the caller is told %q", message)
				}
			}
			if details := status.Convert(err).Details(); len(details) > 0 {
				t.Errorf("the caller is given %v", details)
			}
		})
	}
}

func withToken(t *testing.T, p *controlPlane, c nodetoken.Claims) context.Context {
	t.Helper()
	token, err := nodetoken.Mint(p.key, c, time.Hour)
	must(t, err)
	return metadata.AppendToOutgoingContext(boundedContext(t), "authorization", "Bearer "+token)
}

func TestLifetimesAreCapped(t *testing.T) {
	p := startControlPlane(t, ca.Config{Placement: placement{}})
	app := nodetoken.Claims{Namespace: "shop", ServiceAccount: "web"}
	client := auth.NewIstioCertificateServiceClient(p.dial(t))
	for seconds, want := range map[int64]time.Duration{
		0: certs.DefaultLeafTTL, -1: certs.DefaultLeafTTL, 3600: time.Hour,
		1 << 62: certs.DefaultMaxLeafTTL, 1: certs.MinLeafTTL,
	} {
		resp, err := client.CreateCertificate(withToken(t, p, app),
			&auth.IstioCertificateRequest{Csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/web"), ValidityDuration: seconds})
		must(t, err)
		chain, err := certs.ParseChain([]byte(resp.GetCertChain()[0]))
		must(t, err)
		got := chain[0].NotAfter.Sub(chain[0].NotBefore)
		if got < want || got > want+certs.Backdate+2*time.Second {
			t.Errorf("%d s asked: %v, want %v", seconds, got, want)
		}
	}
}

func TestCallersWithoutAGoodTokenAreTurnedAway(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	p := startControlPlane(t, ca.Config{Placement: placement{}, Logger: zap.New(core)})
	good, err := nodetoken.Mint(p.key, ztunnelA, time.Hour)
	must(t, err)
	stranger, err := nodetoken.GenerateKey()
	must(t, err)
	forged, err := nodetoken.Mint(stranger, ztunnelA, time.Hour)
	must(t, err)
	vault := ztunnelA
	vault.Audience = []string{"vault"}
	misdirected, err := nodetoken.Mint(p.key, vault, time.Hour)
	must(t, err)
	client := auth.NewIstioCertificateServiceClient(p.dial(t))
	n := 0
	for name, headers := range map[string][]string{
		"no header":              {},
		"no token":               {"authorization", "Bearer "},
		"another scheme":         {"authorization", "Basic " + good},
		"no scheme":              {"authorization", good},
		"a forged token":         {"authorization", "Bearer " + forged},
		"a token for others":     {"authorization", "Bearer " + misdirected},
		"two tokens":             {"authorization", "Bearer " + good, "authorization", "Bearer " + good},
		"a token with more":      {"authorization", "Bearer " + good + " x"},
		"a token in another key": {"x-authorization", "Bearer " + good},
	} {
		n++
		ctx := metadata.AppendToOutgoingContext(boundedContext(t), headers...)
		_, err := client.CreateCertificate(ctx, &auth.IstioCertificateRequest{Csr: csrWith(t, "spiffe://cluster.local/ns/istio-system/sa/ztunnel")})
		if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != "the request is not authenticated" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !metric(p.registry, "citadel_server_authentication_failure_count 9") || n != 9 {
		t.Errorf("the %d failures are not counted", n)
	}
	if logs.FilterMessage("caller not authenticated").Len() != n {
		t.Errorf("%d log lines, want %d", logs.Len(), n)
	}
	for _, entry := range logs.All() {
		for _, secret := range []string{good, forged, misdirected} {
			if strings.Contains(entry.ContextMap()["error"].(string), secret) {
				t.Error("a token is in the log")
			}
		}
	}
	// The scheme's case does not matter.
	_, err = client.CreateCertificate(metadata.AppendToOutgoingContext(boundedContext(t), "authorization", "bearer "+good),
		&auth.IstioCertificateRequest{Csr: csrWith(t, "spiffe://cluster.local/ns/istio-system/sa/ztunnel")})
	must(t, err)
}

// latePlacement knows of a pod only after it has been asked a few times.
type latePlacement struct {
	asked atomic.Int32
	after int32
}

func (p *latePlacement) RunsOnNode(string, string, string) bool { return p.asked.Add(1) > p.after }

func TestAPodThatIsAboutToBeKnownIsWaitedFor(t *testing.T) {
	const web = "spiffe://cluster.local/ns/shop/sa/web"
	late := &latePlacement{after: 3}
	p := startControlPlane(t, ca.Config{Placement: late, PlacementWait: 30 * time.Second})
	_, err := auth.NewIstioCertificateServiceClient(p.dial(t)).CreateCertificate(withToken(t, p, ztunnelA),
		&auth.IstioCertificateRequest{Csr: csrWith(t, web), Metadata: impersonate(web)})
	must(t, err)
	if n := late.asked.Load(); n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}
}

func TestTheWaitForAPodEnds(t *testing.T) {
	const web = "spiffe://cluster.local/ns/shop/sa/web"
	core, logs := observer.New(zap.DebugLevel)
	never := &latePlacement{after: 1 << 30}
	p := startControlPlane(t, ca.Config{Placement: never, PlacementWait: 100 * time.Millisecond, Logger: zap.New(core)})
	request := &auth.IstioCertificateRequest{Csr: csrWith(t, web), Metadata: impersonate(web)}
	client := auth.NewIstioCertificateServiceClient(p.dial(t))
	if _, err := client.CreateCertificate(withToken(t, p, ztunnelA), request); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a pod that never comes: %v", err)
	}
	if logs.FilterField(zap.String("reason", "not_on_node")).Len() != 1 {
		t.Errorf("log %v", logs.All())
	}
}

func TestAnAuthorityThatCannotSignSaysTryAgain(t *testing.T) {
	var shift atomic.Int64
	p := startControlPlane(t, ca.Config{Placement: placement{}}, func(cfg *certs.AuthorityConfig) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	})
	conn := p.dial(t)
	conn.Connect()
	app := nodetoken.Claims{Namespace: "shop", ServiceAccount: "web"}
	request := &auth.IstioCertificateRequest{Csr: csrWith(t, "spiffe://cluster.local/ns/shop/sa/web")}
	client := auth.NewIstioCertificateServiceClient(conn)
	_, err := client.CreateCertificate(withToken(t, p, app), request)
	must(t, err)
	shift.Store(int64(11 * 365 * 24 * time.Hour)) // beyond the root
	_, err = client.CreateCertificate(withToken(t, p, app), request)
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "expired") {
		t.Errorf("error %v", err)
	}
	if !metric(p.registry, `citadel_server_csr_sign_err_count{reason="authority_unavailable"} 1`) {
		t.Error("not counted")
	}
}
