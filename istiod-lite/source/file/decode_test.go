package file_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

const policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: %s\n"
const peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: %s\n"
const request = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: p, namespace: shop}\nspec: %s\n"
const entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\nspec: %s\n"
const (
	gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: shop}\nspec: %s\n"
	route   = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: %s\n"
)

const (
	virtual     = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: %s\n"
	destination = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: shop}\nspec: %s\n"
	limit       = "apiVersion: policy.tulle.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: l, namespace: shop}\nspec: %s\n"
	fault       = "apiVersion: policy.tulle.dev/v1alpha1\nkind: FaultPolicy\nmetadata: {name: f, namespace: shop}\nspec: %s\n"
)

const machine = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: m, namespace: shop}\nspec: %s\n"

// TestMistakesNameObjectAndField holds one mistake for each line.
func TestMistakesNameObjectAndField(t *testing.T) {
	rule := func(s string) string { return fmt.Sprintf(policy, "{action: DENY, rules: ["+s+"]}") }
	from := func(s string) string { return rule("{from: [{source: {" + s + "}}]}") }
	for _, c := range []struct{ name, yaml, object, field, message string }{
		// the document
		{"not an object", "[1, 2]", "", "", "not a Kubernetes object"},
		{"broken YAML", "a: [", "", "", "did not find expected"},
		{"duplicate key", "apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: p}\n", "", "kind", "already set"},
		{"two JSON objects in one document", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}` + "\n" + `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}`, "", "", "more follows"},
		{"two YAML objects in braces", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n{apiVersion: v1, kind: Namespace, metadata: {name: b}}", "", "", "more follows"},
		{"two objects with line breaks of old", "apiVersion: v1\rkind: Namespace\rmetadata: {name: a}\r---\rapiVersion: v1\rkind: Namespace\rmetadata: {name: b}\r", "", "", "more follows"},
		{"duplicate key in JSON", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","name":"q"}}`, "Pod q", "metadata.name", "duplicate field"},
		{"two kinds at once", `{"apiVersion":"v1","kind":"Namespace","kind":"Secret","metadata":{"name":"a"}}`, "Secret a", "kind", "duplicate field"},
		{"JSON after JSON", "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\n{}", "", "", "more follows"},
		{"flow after flow", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n{apiVersion: v1}\n", "", "", "more follows"},
		{"no kind", "apiVersion: v1\nmetadata: {name: p}\n", "p", "kind", "missing"},
		{"no version", "kind: Pod\nmetadata: {name: p}\n", "Pod p", "apiVersion", "missing"},
		{"unknown kind", "apiVersion: v1\nkind: Pood\nmetadata: {name: p}\n", "Pood p", "kind", "unknown kind"},
		{"unknown version", "apiVersion: security.istio.io/v2\nkind: PeerAuthentication\nmetadata: {name: p}\n", "PeerAuthentication p", "apiVersion", "use security.istio.io/v1"},
		{"not yet", "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {name: r}\n", "UDPRoute r", "kind", "not supported yet"},
		{"a class in a namespace", "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c, namespace: shop}\nspec: {controllerName: a.b/c}\n", "GatewayClass shop/c", "metadata.namespace", "no namespace"},

		// gateways and routes
		{"no listener", fmt.Sprintf(gateway, "{gatewayClassName: istio-waypoint}"), "Gateway shop/g", "spec.listeners", "15008"},
		{"no class", fmt.Sprintf(gateway, "{listeners: [{name: mesh, port: 15008, protocol: HBONE}]}"), "Gateway shop/g", "spec.gatewayClassName", ""},
		{"from where", fmt.Sprintf(gateway, "{gatewayClassName: x, listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Any}}}]}"), "Gateway shop/g", "spec.listeners[0].allowedRoutes.namespaces.from", "All"},
		{"unknown field of a route", fmt.Sprintf(route, "{rule: []}"), "HTTPRoute shop/r", "spec.rule", "unknown field"},
		{"a service without its group", fmt.Sprintf(route, "{parentRefs: [{kind: Service, name: web}]}"), "HTTPRoute shop/r", "spec.parentRefs[0].group", "in group"},
		{"no port of a backend", fmt.Sprintf(route, "{rules: [{backendRefs: [{name: web}]}]}"), "HTTPRoute shop/r", "spec.rules[0].backendRefs[0].port", "needs a port"},
		{"weight", fmt.Sprintf(route, "{rules: [{backendRefs: [{name: web, port: 80, weight: -1}]}]}"), "HTTPRoute shop/r", "spec.rules[0].backendRefs[0].weight", "1000000"},
		{"path", fmt.Sprintf(route, "{rules: [{matches: [{path: {value: api}}]}]}"), "HTTPRoute shop/r", "spec.rules[0].matches[0].path.value", "start with /"},
		{"regular expression", fmt.Sprintf(route, "{rules: [{matches: [{path: {type: RegularExpression, value: '['}}]}]}"), "HTTPRoute shop/r", "spec.rules[0].matches[0].path.value", "missing"},
		{"header", fmt.Sprintf(route, "{rules: [{matches: [{headers: [{name: 'a b', value: x}]}]}]}"), "HTTPRoute shop/r", "spec.rules[0].matches[0].headers[0].name", "HTTP header"},
		{"a filter without its part", fmt.Sprintf(route, "{rules: [{filters: [{type: URLRewrite}]}]}"), "HTTPRoute shop/r", "spec.rules[0].filters[0].urlRewrite", "names"},
		{"a filter of others", fmt.Sprintf(route, "{rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: X, name: other}}]}]}"), "HTTPRoute shop/r", "spec.rules[0].filters[0].type", "supported values"},
		{"a mirror without a port", fmt.Sprintf(route, "{rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web}}}]}]}"), "HTTPRoute shop/r", "spec.rules[0].filters[0].requestMirror.backendRef.port", "needs a port"},
		{"timeout", fmt.Sprintf(route, "{rules: [{timeouts: {request: soon}}]}"), "HTTPRoute shop/r", "spec.rules[0].timeouts.request", "500ms"},
		{"a grant to nobody", "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\nspec: {from: [], to: [{group: '', kind: Service}]}\n", "ReferenceGrant shop/g", "spec.from", "who"},
		{"a name of a TLS route", "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: r, namespace: shop}\nspec: {hostnames: ['a..b']}\n", "TLSRoute shop/r", "spec.hostnames[0]", "RFC 1123"},
		{"a backend of a TCP route", "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: r, namespace: shop}\nspec: {rules: [{backendRefs: [{name: web, port: 0}]}]}\n", "TCPRoute shop/r", "spec.rules[0].backendRefs[0].port", "65535"},
		{"zero byte", "a: \x00", "", "", "not a text file"},
		{"too deep", strings.Repeat("{a: ", 70) + "1" + strings.Repeat("}", 70), "", "", "nested deeper"},
		{"list in list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]\n", "List", "items", "List inside a List"},
		{"unknown field of a list", "apiVersion: v1\nkind: List\nitem: []\n", "List", "item", "unknown field"},

		// Kubernetes objects
		{"unknown field", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c, imagePulPolicy: Always}]}\n", "Pod shop/p", "spec.containers[0].imagePulPolicy", "unknown field"},
		{"wrong case", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {nodename: n}\n", "Pod shop/p", "spec.nodename", "unknown field"},
		{"wrong type", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {hostNetwork: maybe}\n", "Pod shop/p", "spec.hostNetwork", "want true or false"},
		{"a word that YAML takes for a truth value", "apiVersion: v1\nkind: Pod\nmetadata: {name: on}\n", "Pod", "metadata.name", "quote them"},
		{"no name", "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop}\n", "Pod shop/", "metadata.name", "Required"},
		{"bad name", "apiVersion: v1\nkind: Service\nmetadata: {name: 9lives, namespace: shop}\nspec: {ports: [{port: 80}]}\n", "Service shop/9lives", "metadata.name", "DNS-1035"},
		{"bad label", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: 'a b'}}\n", "Pod shop/p", "metadata.labels", "a valid label"},
		{"namespace of a namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, namespace: shop}\n", "Namespace shop/ns", "metadata.namespace", "no namespace"},
		{"mode", "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, labels: {istio.io/dataplane-mode: ambiant}}\n", "Namespace ns", "metadata.labels[istio.io/dataplane-mode]", "ambient"},
		{"pod address", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nstatus: {podIP: 10.0.0.300}\n", "Pod shop/p", "status.podIP", "IPv4 or IPv6"},
		{"container port", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c, ports: [{containerPort: 70000}]}]}\n", "Pod shop/p", "spec.containers[0].ports[0].containerPort", "between 1 and 65535"},
		{"phase", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nstatus: {phase: Runing}\n", "Pod shop/p", "status.phase", "Running"},
		{"service port", "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 0}]}\n", "Service shop/s", "spec.ports[0].port", "between 1 and 65535"},
		{"double service port", "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{name: a, port: 80}, {name: b, port: 80}]}\n", "Service shop/s", "spec.ports[1].port", "Duplicate"},
		{"unnamed ports", "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}, {port: 81, name: b}]}\n", "Service shop/s", "spec.ports[0].name", "Required"},
		{"cluster IP", "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {clusterIP: 10.96.0, ports: [{port: 80}]}\n", "Service shop/s", "spec.clusterIP", "IPv4 or IPv6"},
		{"endpoint family", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: shop}\naddressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]\n", "EndpointSlice shop/s", "endpoints[0].addresses[0]", "addressType"},

		// values that do not fit their fields
		{"a timeout that is none", fmt.Sprintf(virtual, "{hosts: [web], http: [{}, {timeout: abc}]}"), "VirtualService shop/v", "spec.http[1].timeout", "\"abc\": want a duration"},
		{"a timeout without a unit", fmt.Sprintf(virtual, "{hosts: [web], http: [{timeout: 5}]}"), "VirtualService shop/v", "spec.http[0].timeout", "5: want a duration"},
		{"a route that goes two ways", fmt.Sprintf(virtual, "{hosts: [web], http: [{redirect: {uri: /a}, delegate: {name: b}}]}"), "VirtualService shop/v", "spec.http[0]", "not by redirect and delegate at once"},
		{"a number of a rule", fmt.Sprintf(destination, "{host: web, trafficPolicy: {outlierDetection: {consecutive5xxErrors: many}}}"), "DestinationRule shop/d", "spec.trafficPolicy.outlierDetection.consecutive5xxErrors", "\"many\": want a whole number from 0"},
		{"a number out of range", fmt.Sprintf(destination, "{host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 5000000000}}}}"), "DestinationRule shop/d", "spec.trafficPolicy.connectionPool.tcp.maxConnections", "5000000000: want a whole number from"},
		{"a limit in quotes", fmt.Sprintf(limit, `{rules: [{limits: [{requests: "2", per: 1s}]}]}`), "RateLimitPolicy shop/l", "spec.rules[0].limits[0].requests", `"2": want a whole number without quotes`},
		{"a span without a unit", fmt.Sprintf(limit, "{rules: [{limits: [{requests: 2, per: 60}]}]}"), "RateLimitPolicy shop/l", "spec.rules[0].limits[0].per", "60: want a duration"},
		{"a span of no unit", fmt.Sprintf(limit, "{rules: [{limits: [{requests: 2, per: minute}]}]}"), "RateLimitPolicy shop/l", "spec.rules[0].limits[0].per", `Invalid value: "minute": must be a duration`},
		{"a backend's port in quotes", fmt.Sprintf(route, `{rules: [{backendRefs: [{name: web, port: "80"}]}]}`), "HTTPRoute shop/r", "spec.rules[0].backendRefs[0].port", "without quotes"},
		{"two ends of a request", fmt.Sprintf(fault, "{targetRefs: [{group: '', kind: Service, name: web}], abort: {httpStatus: 503, reset: true}}"), "FaultPolicy shop/f", "spec.abort", "not by httpStatus and reset at once"},
		{"no end of a request", fmt.Sprintf(fault, "{targetRefs: [{group: '', kind: Service, name: web}], abort: {percent: 5}}"), "FaultPolicy shop/f", "spec.abort", "one of httpStatus, grpcStatus, reset"},

		// policies
		{"misspelt condition", from("notPrincipal: [a]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.notPrincipal", "unknown field"},
		{"misspelt list", rule("{form: []}"), "AuthorizationPolicy shop/p", "spec.rules[0].form", "unknown field"},
		{"empty from", rule("{from: []}"), "AuthorizationPolicy shop/p", "spec.rules[0].from", "empty list"},
		{"from without a value", rule("{from: , to: [{operation: {ports: ['80']}}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].from", "no value"},
		{"values without a value", from("principals: , namespaces: [a]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals", "no value"},
		{"action without a value", fmt.Sprintf(policy, "{action: , rules: [{}]}"), "AuthorizationPolicy shop/p", "spec.action", "no value"},
		{"mode without a value", fmt.Sprintf(peer, "{mtls: {mode: }}"), "PeerAuthentication shop/p", "spec.mtls.mode", "no value"},
		{"empty values", from("principals: []"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals", "empty list"},
		{"from without a value", fmt.Sprintf(policy, "{rules: [{from: , to: [{operation: {ports: ['80']}}]}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].from", "no value"},
		{"principals without a value", rule("{from: [{source: {namespaces: [a], principals: }}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals", "no value"},
		{"action without a value", fmt.Sprintf(policy, "{action: , rules: [{}]}"), "AuthorizationPolicy shop/p", "spec.action", "no value"},
		{"selector without a value", fmt.Sprintf(policy, "{selector: {matchLabels: }, rules: [{}]}"), "AuthorizationPolicy shop/p", "spec.selector.matchLabels", "no value"},
		{"rule without a value", fmt.Sprintf(policy, "{rules: [null]}"), "AuthorizationPolicy shop/p", "spec.rules[0]", "want an object"},
		{"mode without a value", fmt.Sprintf(peer, "{mtls: {mode: }}"), "PeerAuthentication shop/p", "spec.mtls.mode", "no value"},
		{"empty source", rule("{from: [{source: {}}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source", "match everything"},
		{"no source", rule("{from: [{}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source", "match everything"},
		{"no operation", rule("{to: [{operation: {}}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].to[0].operation", "match everything"},
		{"number for text", rule("{to: [{operation: {ports: [80]}}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].to[0].operation.ports[0]", "quote it"},
		{"action", fmt.Sprintf(policy, "{action: DENNY}"), "AuthorizationPolicy shop/p", "spec.action", "one of ALLOW, DENY"},
		{"custom", fmt.Sprintf(policy, "{action: CUSTOM, provider: {name: x}, rules: [{}]}"), "AuthorizationPolicy shop/p", "spec.action", "Unsupported"},
		{"target", fmt.Sprintf(policy, "{targetRefs: [{kind: Planet, name: s}]}"), "AuthorizationPolicy shop/p", "spec.targetRefs[0].kind", "Unsupported value: \"Planet\": supported values"},
		{"target and selector", fmt.Sprintf(policy, "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, group: '', name: s}]}"), "AuthorizationPolicy shop/p", "spec.selector", "not both"},
		{"a class from anywhere", fmt.Sprintf(policy, "{targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: s}]}"), "AuthorizationPolicy shop/p", "spec.targetRefs[0].kind", "istio-system"},
		{"a provider of an ALLOW", fmt.Sprintf(policy, "{provider: {name: x}, rules: [{}]}"), "AuthorizationPolicy shop/p", "spec.provider", "CUSTOM"},
		{"deny nothing", fmt.Sprintf(policy, "{action: DENY}"), "AuthorizationPolicy shop/p", "spec.rules", "denies nothing"},
		{"CIDR", from("ipBlocks: [10.0.0.0/33]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.ipBlocks[0]", "CIDR"},
		{"port", rule("{to: [{operation: {ports: ['65536']}}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].to[0].operation.ports[0]", "65535"},
		{"principal with scheme", from("principals: ['spiffe://cluster.local/ns/a/sa/b']"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals[0]", "without spiffe://"},
		{"principal of no shape", from("principals: [cluster.local/sa/b]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals[0]", "trust-domain/ns/"},
		{"star inside", from("principals: ['cluster.local/*/sa/b']"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.principals[0]", "star"},
		{"two stars", from("namespaces: ['*a*']"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.namespaces[0]", "star"},
		{"bad namespace", from("namespaces: [Shop]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.namespaces[0]", "RFC 1123"},
		{"account wildcard", from("serviceAccounts: ['shop/*']"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.serviceAccounts[0]", "without wildcards"},
		{"account beside namespace", from("serviceAccounts: [a], namespaces: [b]"), "AuthorizationPolicy shop/p", "spec.rules[0].from[0].source.serviceAccounts", "beside"},
		{"condition", rule("{when: [{key: source.ipp, values: [10.0.0.1]}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].when[0].key", "no such condition"},
		{"condition without values", rule("{when: [{key: source.ip}]}"), "AuthorizationPolicy shop/p", "spec.rules[0].when[0]", "needs a condition"},
		{"dry-run", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop, annotations: {istio.io/dry-run: ja}}\nspec: {}\n", "AuthorizationPolicy shop/p", "metadata.annotations[istio.io/dry-run]", "true"},
		{"mTLS mode", fmt.Sprintf(peer, "{mtls: {mode: STRIKT}}"), "PeerAuthentication shop/p", "spec.mtls.mode", "STRICT"},
		{"a rule for nobody's tokens", fmt.Sprintf(request, "{jwtRules: [{jwksUri: 'https://a.b/keys'}]}"), "RequestAuthentication shop/p", "spec.jwtRules[0].issuer", ""},
		{"a rule without keys", fmt.Sprintf(request, "{jwtRules: [{issuer: a}]}"), "RequestAuthentication shop/p", "spec.jwtRules[0].jwksUri", "by which keys"},
		{"keys that are none", fmt.Sprintf(request, "{jwtRules: [{issuer: a, jwks: '{'}]}"), "RequestAuthentication shop/p", "spec.jwtRules[0].jwks", "RFC 7517"},
		{"keys of no scheme", fmt.Sprintf(request, "{jwtRules: [{issuer: a, jwksUri: 'file:///etc/keys'}]}"), "RequestAuthentication shop/p", "spec.jwtRules[0].jwksUri", "https"},
		{"a header of a token", fmt.Sprintf(request, "{jwtRules: [{issuer: a, jwks: '{}', fromHeaders: [{name: 'a b'}]}]}"), "RequestAuthentication shop/p", "spec.jwtRules[0].fromHeaders[0].name", "HTTP header"},
		{"a misspelt rule", fmt.Sprintf(request, "{jwtRule: []}"), "RequestAuthentication shop/p", "spec.jwtRule", "unknown field"},
		{"ports without selector", fmt.Sprintf(peer, "{portLevelMtls: {80: {mode: STRICT}}}"), "PeerAuthentication shop/p", "spec.portLevelMtls", "selector"},
		{"mTLS port", fmt.Sprintf(peer, "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}"), "PeerAuthentication shop/p", "spec.portLevelMtls[0]", "65535"},
		{"selector", fmt.Sprintf(peer, "{selector: {matchLabel: {a: b}}}"), "PeerAuthentication shop/p", "spec.selector.matchLabel", "unknown field"},
		{"top level", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspek: {}\n", "PeerAuthentication shop/p", "spek", "unknown field"},

		// entries
		{"no spec", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: shop}\n", "ServiceEntry shop/e", "spec", "missing"},
		{"no host", fmt.Sprintf(entry, "{ports: [{number: 80, name: http}]}"), "ServiceEntry shop/e", "spec.hosts", "needs a host"},
		{"static without endpoints", fmt.Sprintf(entry, "{hosts: [a.b], resolution: STATIC}"), "ServiceEntry shop/e", "spec.endpoints", "STATIC needs"},
		{"static by name", fmt.Sprintf(entry, "{hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}]}"), "ServiceEntry shop/e", "spec.endpoints[0].address", "IP address"},
		{"wildcard DNS", fmt.Sprintf(entry, "{hosts: ['*.b'], resolution: DNS}"), "ServiceEntry shop/e", "spec.resolution", "wildcard"},
		{"port name of an endpoint", fmt.Sprintf(entry, "{hosts: [a.b], resolution: STATIC, ports: [{number: 80, name: http}], endpoints: [{address: 10.0.0.1, ports: {https: 443}}]}"), "ServiceEntry shop/e", "spec.endpoints[0].ports[https]", "no port"},
		{"SAN", fmt.Sprintf(entry, "{hosts: [a.b], subjectAltNames: [a.b]}"), "ServiceEntry shop/e", "spec.subjectAltNames[0]", "SPIFFE"},
		{"no address", fmt.Sprintf(machine, "{labels: {a: b}}"), "WorkloadEntry shop/m", "spec.address", "needs an address"},
		{"socket", fmt.Sprintf(machine, "{address: 'unix:///x'}"), "WorkloadEntry shop/m", "spec.address", "Unix"},
		{"machine port", fmt.Sprintf(machine, "{address: 10.0.0.1, ports: {http: 65536}}"), "WorkloadEntry shop/m", "spec.ports[http]", "65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, problems := file.Decode("f.yaml", []byte("# first line\n---\n"+c.yaml), checker)
			if objects != nil || len(problems) == 0 {
				t.Fatalf("taken: %+v", objects)
			}
			p := problems[0]
			if p.Object != c.object || p.Field != c.field || !strings.Contains(p.Message, c.message) || p.File != "f.yaml" || (p.Line != 3 && c.name != "zero byte") {
				t.Errorf("problem %+v\nwant line 3, object %q, field %q, message with %q", p, c.object, c.field, c.message)
			}
		})
	}
}

func TestAnObjectThatExistsTwiceIsRefused(t *testing.T) {
	one := "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n"
	_, problems := file.Decode("f.yaml", []byte(one+"---\n"+one), checker)
	if len(problems) != 1 || problems[0].Line != 5 || !strings.Contains(problems[0].Message, "f.yaml:1") {
		t.Errorf("problems = %v", problems)
	}
}

func TestWhatIsTaken(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		objects    int
	}{
		{"nothing", "", 0},
		{"comments and separators", "# x\n---\n---\n# y\n...\n", 0},
		{"a list", "apiVersion: v1\nkind: List\nmetadata: {}\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n", 2},
		{"documents that end with dots", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n...\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n... # the end\n", 2},
		{"a comment before braces", "# x\n{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n# y\n", 1},
		{"JSON with tabs", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n", 1},
		{"a byte order mark and CRLF", "\ufeffapiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: a}\r\n---\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: b}\r\n", 2},
		{"content on the separator's line", "--- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n", 1},
		{"documents ended by dots", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n...\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n... # end\n", 2},
		{"flow style", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n", 1},
		{"inert kinds", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {whatever: 1}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: c}\n", 0},
		{"a status of Istio's", "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: STRICT}}\nstatus: {conditions: [{type: x}]}\n", 1},
		{"no spec at all", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all, namespace: shop}\n", 1},
		{"a pod as kubectl prints it", kubectlPod, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, problems := file.Decode("f.yaml", []byte(c.yaml), checker)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if objects.Len() != c.objects {
				t.Errorf("%d objects, want %d", objects.Len(), c.objects)
			}
		})
	}
}

// TestOtherLineBreaksDoNotHideADocument: YAML 1.1 knows more of them than most
// people, and what follows a hidden separator would be passed over.
func TestOtherLineBreaksDoNotHideADocument(t *testing.T) {
	for _, br := range []string{"\r", "\u0085", "\u2028", "\u2029"} {
		for _, sep := range []string{"---", "..."} {
			in := strings.Join([]string{"apiVersion: v1", "kind: Namespace", "metadata: {name: a}", sep, "apiVersion: v1", "kind: Namespace", "metadata: {name: b}"}, br)
			if objects, problems := file.Decode("f.yaml", []byte(in), checker); objects != nil || len(problems) == 0 {
				t.Errorf("break %q, separator %q: %d objects taken", br, sep, objects.Len())
			}
		}
	}
}

func TestAnObjectWithoutNamespaceIsInDefault(t *testing.T) {
	objects, problems := file.Decode("f.yaml", []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"), checker)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name := range objects.ServiceAccounts {
		if name.Namespace != "default" {
			t.Errorf("namespace = %q", name.Namespace)
		}
	}
}

// kubectlPod is a pod with the fields that an API server fills in.
const kubectlPod = `apiVersion: v1
kind: Pod
metadata:
  annotations: {kubernetes.io/psp: x}
  creationTimestamp: "2026-11-21T10:00:00Z"
  generateName: web-5d4f8c7b9-
  generation: 1
  labels: {app: web, pod-template-hash: 5d4f8c7b9}
  managedFields:
  - {apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:metadata": {}}, manager: m, operation: Update, time: "2026-11-21T10:00:00Z"}
  name: web-5d4f8c7b9-abcde
  namespace: shop
  ownerReferences:
  - {apiVersion: apps/v1, blockOwnerDeletion: true, controller: true, kind: ReplicaSet, name: web-5d4f8c7b9, uid: 0d1f}
  resourceVersion: "12345"
  uid: 7c9e
spec:
  containers:
  - image: nginx
    imagePullPolicy: IfNotPresent
    name: web
    ports: [{containerPort: 8080, name: http, protocol: TCP}]
    resources: {limits: {cpu: 100m, memory: 64Mi}}
    volumeMounts: [{mountPath: /var/run/secrets, name: token, readOnly: true}]
  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  nodeName: n1
  restartPolicy: Always
  serviceAccount: web
  serviceAccountName: web
  terminationGracePeriodSeconds: 30
  tolerations: [{effect: NoExecute, key: node.kubernetes.io/not-ready, operator: Exists, tolerationSeconds: 300}]
  volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 3600}}]}}]
status:
  conditions: [{lastProbeTime: null, lastTransitionTime: "2026-11-21T10:00:05Z", status: "True", type: Ready}]
  containerStatuses: [{containerID: "containerd://x", image: nginx, imageID: z, lastState: {}, name: web, ready: true, restartCount: 0, started: true, state: {running: {startedAt: "2026-11-21T10:00:04Z"}}}]
  hostIP: 192.168.0.1
  hostIPs: [{ip: 192.168.0.1}]
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}]
  qosClass: Burstable
  startTime: "2026-11-21T10:00:00Z"
`
