package status_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
)

// TestTrafficIsToldWhatBecomesOfIt asks for the conditions of what operators write of
// traffic.
func TestTrafficIsToldWhatBecomesOfIt(t *testing.T) {
	text := strings.NewReplacer("STATUS", "", "READY", "True").Replace(behind) + `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: good, namespace: shop}
spec: {host: web, trafficPolicy: {outlierDetection: {maxEjectionPercent: 50}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: later, namespace: shop}
spec: {host: web.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: partly, namespace: shop}
spec: {host: "*.shop.svc.cluster.local", trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lost, namespace: shop}
spec: {host: gone}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: idle, namespace: shop}
spec: {host: bare}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.3, selector: {app: api}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shadowed, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: good, namespace: shop}
spec: {hosts: [api], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: later, namespace: shop}
spec: {hosts: [api], http: [{route: [{destination: {host: gone}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ingress, namespace: shop}
spec: {hosts: [web], gateways: [public], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: good, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], validation: {hostname: web.example.com, wellKnownCACertificates: System}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: later, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], validation: {hostname: web.example.com, wellKnownCACertificates: System}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: port, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web, sectionName: http}], validation: {hostname: web.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: gone}]}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: good, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}, {group: "", kind: Service, name: gone}], retryConstraint: {budget: {percent: 10}}}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: BackendPolicy
metadata: {name: good, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], loadBalancer: {type: PeakEWMA}}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: BackendPolicy
metadata: {name: idle, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: bare}], loadBalancer: {type: PeakEWMA}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: good, namespace: shop}
spec: {accessLogging: [{filter: {expression: response.code >= 400}}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: later, namespace: shop}
spec: {tracing: [{randomSamplingPercentage: 1}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: partly, namespace: shop}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], tracing: [{providers: [{name: gone}]}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: lost, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: gone}], accessLogging: [{}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: idle, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: bare}], accessLogging: [{}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: pods, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, accessLogging: [{}]}
---
apiVersion: policy.tulle.dev/v1alpha1
kind: FaultPolicy
metadata: {name: refused, namespace: shop}
spec: {targetRefs: [{group: "", kind: Service, name: web}], delay: {duration: 1s}}
`
	objects, problems := file.Decode("objects.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	var decider status.Decider
	for _, c := range []struct {
		kind, name string
		want       []string // of the object, or of its first ancestor and the next
	}{
		{"DestinationRule", "good", []string{"WaypointAccepted True Accepted"}},
		{"DestinationRule", "later", []string{"WaypointAccepted True Accepted"}}, // its policy is not taken, and it says so
		{"DestinationRule", "partly", []string{"WaypointAccepted False PartiallyInvalid"}},
		{"DestinationRule", "lost", []string{"WaypointAccepted False TargetNotFound"}},
		{"DestinationRule", "idle", []string{"WaypointAccepted False AncestorNotBound"}},
		{"VirtualService", "shadowed", []string{"WaypointAccepted False Overridden"}}, // by a route
		{"VirtualService", "good", []string{"WaypointAccepted True Accepted"}},
		{"VirtualService", "later", []string{"WaypointAccepted False Overridden"}},
		{"VirtualService", "ingress", []string{"WaypointAccepted False AncestorNotBound"}},
		{"BackendTLSPolicy", "good", []string{"Accepted True Accepted", "ResolvedRefs True ResolvedRefs"}},
		{"BackendTLSPolicy", "later", []string{"Accepted False Conflicted", "ResolvedRefs True ResolvedRefs"}},
		{"BackendTLSPolicy", "port", []string{"Accepted False NoValidCACertificate", "ResolvedRefs False InvalidCACertificateRef"}},
		{"XBackendTrafficPolicy", "good", []string{"Accepted True Accepted", "Accepted False TargetNotFound"}},
		{"BackendPolicy", "good", []string{"Accepted True Accepted", "Enforced True Enforced"}},
		{"BackendPolicy", "idle", []string{"Accepted True Accepted", "Enforced False AncestorNotBound"}},
		{"Telemetry", "good", []string{"WaypointAccepted True Accepted"}},
		{"Telemetry", "later", []string{"WaypointAccepted False Overridden"}},
		{"Telemetry", "partly", []string{"WaypointAccepted False PartiallyInvalid"}},
		{"Telemetry", "lost", []string{"WaypointAccepted False TargetNotFound"}},
		{"Telemetry", "idle", []string{"WaypointAccepted False AncestorNotBound"}},
		{"Telemetry", "pods", []string{"WaypointAccepted False AncestorNotBound"}},
		{"FaultPolicy", "refused", []string{"Accepted False FaultsNotAllowed", "Enforced False NotAccepted"}},
	} {
		key := source.Key{Kind: c.kind, Name: source.Name{Namespace: "shop", Name: c.name}}
		want, ok := decider.Decide(objects, objects.Object(key))
		if !ok {
			t.Errorf("%s: nothing", key)
			continue
		}
		list := want.Conditions
		for _, p := range want.Parents {
			list = append(list, p.Conditions...)
		}
		var got []string
		for _, c := range list {
			got = append(got, fmt.Sprintf("%s %s %s", c.Type, c.Status, c.Reason))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q: %+v", key, got, c.want, list)
		}
	}
}

// TestTrafficIsToldByTheServer has a real API server check, keep and give back what
// operators write of traffic.
func TestTrafficIsToldByTheServer(t *testing.T) {
	w := newWorld(t)
	w.put(fmt.Sprintf(service, "web", "{}"))
	w.put(`{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: web, trafficPolicy: {
connectionPool: {tcp: {maxConnectionDuration: 1h, tcpKeepalive: {probes: 3}}}}}}`)
	if c := w.await("DestinationRule", "d", "WaypointAccepted", "AncestorNotBound"); !strings.Contains(c.Message, "tcpKeepalive") {
		t.Errorf("%+v", c)
	}
	w.put(`{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v}, spec: {hosts: [nowhere], http: [{timeout: 50ms, route: [{destination: {host: web}}]}]}}`)
	w.await("VirtualService", "v", "WaypointAccepted", "TargetNotFound")
	w.put(`{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {name: l}, spec: {targetRefs: [{group: "", kind: Service, name: nowhere}], accessLogging: [{}]}}`)
	w.await("Telemetry", "l", "WaypointAccepted", "TargetNotFound")
	w.put(`{apiVersion: policy.tulle.dev/v1alpha1, kind: BackendPolicy, metadata: {name: b}, spec: {targetRefs: [{group: "", kind: Service, name: web}], loadBalancer: {type: PeakEWMA}}}`)
	w.await("BackendPolicy", "b", "Enforced", "AncestorNotBound")
	if c := w.await("BackendPolicy", "b", "Accepted", "Accepted"); c.Status != "True" {
		t.Errorf("%+v", c)
	}
	w.put(`{apiVersion: policy.tulle.dev/v1alpha1, kind: FaultPolicy, metadata: {name: f}, spec: {targetRefs: [{group: "", kind: Service, name: web}], abort: {httpStatus: 503, percent: 1}}}`)
	w.await("FaultPolicy", "f", "Accepted", "FaultsNotAllowed")
	for _, bad := range []string{
		`{targetRefs: [{group: "", kind: Service, name: web}]}`,
		`{targetRefs: [{group: "", kind: Service, name: web}], abort: {httpStatus: 503, reset: true}}`,
		`{targetRefs: [{group: "", kind: Service, name: web}], delay: {duration: soon}}`,
		`{targetRefs: [{group: "", kind: Pod, name: web}], delay: {duration: 1s}}`,
	} {
		o := &unstructured.Unstructured{}
		must(t, yaml.Unmarshal([]byte(`{apiVersion: policy.tulle.dev/v1alpha1, kind: FaultPolicy, metadata: {name: bad}, spec: `+bad+`}`), &o.Object))
		if _, err := w.at("FaultPolicy").Create(t.Context(), o, metav1.CreateOptions{}); err == nil {
			t.Errorf("the API server takes %s", bad)
			must(t, w.at("FaultPolicy").Delete(t.Context(), "bad", metav1.DeleteOptions{}))
		}
	}

	w.put(`{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: t}, spec: {targetRefs: [{group: "", kind: Service, name: web}],
validation: {hostname: web.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]}}}`)
	ancestor := func(reason string) {
		t.Helper()
		var got string
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			o, err := w.at("BackendTLSPolicy").Get(t.Context(), "t", metav1.GetOptions{})
			must(t, err)
			list, _, _ := unstructured.NestedSlice(o.Object, "status", "ancestors")
			if got = fmt.Sprint(list); len(list) == 1 && strings.Contains(got, "reason:"+reason+" ") && strings.Contains(got, "controllerName:"+status.ControllerName) {
				return
			}
		}
		t.Fatalf("ancestors %s, want %s", got, reason)
	}
	ancestor("NoValidCACertificate")
	w.put(`{apiVersion: v1, kind: ConfigMap, metadata: {name: ca}, data: {ca.crt: ` + strconv.Quote(authorityPEM(t)) + `}}`)
	ancestor("ResolvedRefs")
}

// authorityPEM is a certificate that signed itself.
func authorityPEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
