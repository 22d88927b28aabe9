package file_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

// TestMistakesInTrafficAreNamed asks for the field and the reason of what is wrong in
// objects that say how traffic goes.
func TestMistakesInTrafficAreNamed(t *testing.T) {
	istio := func(kind, spec string) string {
		return "apiVersion: networking.istio.io/v1\nkind: " + kind + "\nmetadata: {name: o, namespace: shop}\nspec: " + spec + "\n"
	}
	rule := func(policy string) string { return istio("DestinationRule", "{host: web, trafficPolicy: "+policy+"}") }
	virtual := func(route string) string { return istio("VirtualService", "{hosts: [web], http: ["+route+"]}") }
	to := func(part string) string { return virtual("{" + part + ", route: [{destination: {host: web}}]}") }
	tls := func(spec string) string {
		return "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: o, namespace: shop}\nspec: " + spec + "\n"
	}
	own := func(kind, spec string) string {
		return "apiVersion: policy.tulle.dev/v1alpha1\nkind: " + kind + "\nmetadata: {name: o, namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: web}], " + spec + "}\n"
	}
	for _, tt := range []struct{ name, text, field, message string }{
		{"no host", istio("DestinationRule", "{subsets: [{name: a}]}"), "spec.host", "Required"},
		{"a host that is none", istio("DestinationRule", "{host: a..b}"), "spec.host", "RFC 1123"},
		{"two subsets of a name", istio("DestinationRule", "{host: web, subsets: [{name: a}, {name: a}]}"), "spec.subsets[1].name", "Duplicate"},
		{"labels of a subset", istio("DestinationRule", "{host: web, subsets: [{name: a, labels: {v: 'a b'}}]}"), "spec.subsets[0].labels[v]", "valid label"},
		{"a misspelt part", rule("{connectionPol: {}}"), "spec.trafficPolicy.connectionPol", "unknown field"},
		{"a duration", rule("{connectionPool: {tcp: {connectTimeout: -1s}}}"), "spec.trafficPolicy.connectionPool.tcp.connectTimeout", "negative"},
		{"a percentage", rule("{outlierDetection: {maxEjectionPercent: 101}}"), "spec.trafficPolicy.outlierDetection.maxEjectionPercent", "100"},
		{"nothing to hash", rule("{loadBalancer: {consistentHash: {}}}"), "spec.trafficPolicy.loadBalancer.consistentHash", "what is hashed"},
		{"a certificate without its key", rule("{tls: {mode: MUTUAL, clientCertificate: /a}}"), "spec.trafficPolicy.tls.privateKey", "private key"},
		{"certificates of others", rule("{tls: {mode: ISTIO_MUTUAL, caCertificates: /a}}"), "spec.trafficPolicy.tls", "takes no others"},
		{"a port", rule("{portLevelSettings: [{port: {number: 0}}]}"), "spec.trafficPolicy.portLevelSettings[0].port.number", "65535"},

		{"no hosts", istio("VirtualService", "{http: [{route: [{destination: {host: web}}]}]}"), "spec.hosts", "Required"},
		{"a route to nowhere", virtual("{match: [{uri: {prefix: /}}]}"), "spec.http[0]", "exactly one"},
		{"a route and a redirect", virtual("{redirect: {uri: /}, route: [{destination: {host: web}}]}"), "spec.http[0]", "exactly one"},
		{"a regular expression", to("match: [{uri: {regex: '['}}]"), "spec.http[0].match[0].uri.regex", "missing closing"},
		{"a match of nothing", to("match: [{uri: {}}]"), "spec.http[0].match[0].uri", "exact, prefix and regex"},
		{"a status", to("fault: {abort: {httpStatus: 42, percentage: {value: 1}}}"), "spec.http[0].fault.abort.httpStatus", "599"},
		{"a status of gRPC", to("fault: {abort: {grpcStatus: AWAY, percentage: {value: 1}}}"), "spec.http[0].fault.abort.grpcStatus", "UNAVAILABLE"},
		{"a delay of nothing", to("fault: {delay: {percentage: {value: 1}}}"), "spec.http[0].fault.delay.fixedDelay", "Required"},
		{"a destination without a host", virtual("{route: [{destination: {}}]}"), "spec.http[0].route[0].destination.host", "Required"},
		{"a wildcard as destination", virtual("{route: [{destination: {host: '*.a'}}]}"), "spec.http[0].route[0].destination.host", "one service"},
		{"a TLS route without names", istio("VirtualService", "{hosts: [web], tls: [{match: [{port: 443}], route: [{destination: {host: web}}]}]}"), "spec.tls[0].match[0].sniHosts", "Required"},
		{"a code of a redirect", virtual("{redirect: {redirectCode: 300}}"), "spec.http[0].redirect.redirectCode", "301"},

		{"whom to trust", tls("{targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: a.example}}"), "spec.validation.caCertificateRefs", "whom to trust"},
		{"both", tls("{targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: a.example, wellKnownCACertificates: System, caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]}}"), "spec.validation.wellKnownCACertificates", "exclude"},
		{"a wildcard for a name", tls("{targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: '*.example', wellKnownCACertificates: System}}"), "spec.validation.hostname", "wildcard"},
		{"a target of another kind", tls("{targetRefs: [{group: '', kind: Pod, name: web}], validation: {hostname: a.example, wellKnownCACertificates: System}}"), "spec.targetRefs[0].kind", "Service"},

		{"neither delay nor abort", own("FaultPolicy", "headers: []"), "spec.delay", "both"},
		{"two ends", own("FaultPolicy", "abort: {reset: true, httpStatus: 503}"), "spec.abort", "exactly one way"},
		{"two shares", own("FaultPolicy", "delay: {duration: 1s, percent: 1, fraction: {numerator: 1}}"), "spec.delay.fraction", "exclude"},
		{"no time", own("FaultPolicy", "delay: {duration: 0s}"), "spec.delay.duration", "longer than nothing"},
		{"a header's type", own("FaultPolicy", "delay: {duration: 1s}, headers: [{name: a, type: Suffix}]"), "spec.headers[0].type", "Exact"},

		{"a balancer", own("BackendPolicy", "loadBalancer: {type: Best}"), "spec.loadBalancer.type", "PeakEWMA"},
		{"a ring without a key", own("BackendPolicy", "loadBalancer: {type: RingHash}"), "spec.loadBalancer.hash", "what is hashed"},
		{"a key without a ring", own("BackendPolicy", "loadBalancer: {type: Random, hash: [{type: SourceIP}]}"), "spec.loadBalancer.hash", "only RingHash and Maglev"},
		{"two checks", own("BackendPolicy", "healthCheck: {tcp: {}, grpc: {}}"), "spec.healthCheck", "exactly one"},
		{"a path of a check", own("BackendPolicy", "healthCheck: {http: {path: healthz}}"), "spec.healthCheck.http.path", "start with /"},
		{"bounds", own("BackendPolicy", "adaptiveConcurrency: {minConcurrency: 9, maxConcurrency: 3}"), "spec.adaptiveConcurrency.maxConcurrency", "minConcurrency"},
		{"a priority", own("BackendPolicy", "adaptiveConcurrency: {priorities: [{priority: Highest}]}"), "spec.adaptiveConcurrency.priorities[0].priority", "Critical"},
		{"a misspelt field", own("BackendPolicy", "retryBudgt: {}"), "spec.retryBudgt", "unknown field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := file.Decode("a.yaml", []byte(tt.text), checker)
			for _, p := range problems {
				if p.Field == tt.field && strings.Contains(p.Message, tt.message) {
					return
				}
			}
			t.Errorf("%+v, want %s: …%s…", problems, tt.field, tt.message)
		})
	}
}
