package status_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// whole is a mesh in which nothing is amiss.
const whole = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp, policy.tulle.dev/allow-faults: "true"}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: wp, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: wp}, ports: [{name: hbone, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-1, namespace: shop, labels: {app: wp}}
spec: {nodeName: n1, serviceAccountName: wp}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: foreign, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: plain}
spec: {clusterIP: 10.96.0.2, selector: {app: web}, ports: [{name: http, port: 80}]}
`

func files(t *testing.T, text string) *source.Objects {
	t.Helper()
	objects, problems := file.Decode("mesh.yaml", []byte(text), source.Checker{RootNamespace: "istio-system"})
	for _, p := range problems {
		t.Fatal(p.Error())
	}
	return objects
}

func route(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: %s, namespace: shop}\nspec: %s\n", kind, name, spec)
}

func istio(group, kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: %s.istio.io/v1\nkind: %s\nmetadata: {name: %s, namespace: shop}\nspec: %s\n", group, kind, name, spec)
}

func own(kind, namespace, name, spec string) string {
	return fmt.Sprintf("apiVersion: policy.tulle.dev/v1alpha1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", kind, name, namespace, spec)
}

// TestFilesAreWarnedOfWhatConditionsTell has one mistake after the other made in a mesh of
// files, told of once, and mended.
func TestFilesAreWarnedOfWhatConditionsTell(t *testing.T) {
	const (
		web    = `{group: "", kind: Service, name: web}`
		gone   = `{group: "", kind: Service, name: gone}`
		limits = "rules: [{limits: [{requests: 1, per: 1s}]}]"
		to     = "rules: [{backendRefs: [{name: web, port: 80}]}]"
	)
	warner := &status.Warner{}
	translator := translate.New(translate.Options{})
	told := func(text string) []string {
		t.Helper()
		objects := files(t, text)
		var out []string
		for _, w := range warner.With(translator.Translate(objects).Warnings, objects) {
			out = append(out, w.Object+": "+w.Message)
		}
		return out
	}
	if got := told(whole); len(got) > 0 {
		t.Fatalf("a mesh without mistakes: %q", got)
	}
	for _, c := range []struct {
		object string
		want   []string // beginning with the object
	}{
		{route("HTTPRoute", "a", "{parentRefs: ["+gone+"], "+to+"}"), []string{"HTTPRoute shop/a: Service shop/gone does not exist"}},
		{route("HTTPRoute", "a", "{parentRefs: [{name: gone}], "+to+"}"), []string{"HTTPRoute shop/a: spec.parentRefs[0]: Gateway shop/gone does not exist"}},
		{route("GRPCRoute", "a", "{"+to+"}"), []string{"GRPCRoute shop/a: it is attached to nothing: no spec.parentRefs names a Service"}},
		{route("HTTPRoute", "a", `{parentRefs: [{group: "", kind: Service, name: web, port: 81}], `+to+"}"), []string{"HTTPRoute shop/a: Service shop/web has no such TCP port"}},
		{route("HTTPRoute", "a", `{parentRefs: [{group: "", kind: Service, name: web, namespace: plain}], `+to+"}"), []string{
			"HTTPRoute shop/a: Routes of a service need a waypoint that is ready, and it has none: the route has no effect. Service plain/web asks for no waypoint: neither it nor its namespace has the label istio.io/use-waypoint"}},
		{route("HTTPRoute", "a", "{parentRefs: ["+web+"], rules: [{backendRefs: [{name: gone, port: 80}]}]}"), []string{"HTTPRoute shop/a: Service shop/gone does not exist"}},
		{route("HTTPRoute", "a", "{parentRefs: ["+web+"], rules: [{backendRefs: [{name: web, port: 81}]}]}"), []string{"HTTPRoute shop/a: Service shop/web has no TCP port 81"}},
		{route("HTTPRoute", "a", "{parentRefs: ["+web+"], rules: [{backendRefs: [{name: web, namespace: plain, port: 80}]}]}"), []string{
			"HTTPRoute shop/a: no ReferenceGrant in namespace plain lets a HTTPRoute of namespace shop refer to Service plain/web"}},
		{route("TCPRoute", "a", "{parentRefs: ["+gone+"], "+to+"}"), []string{"TCPRoute shop/a: Service shop/gone does not exist"}},
		{route("TLSRoute", "a", "{parentRefs: ["+web+"], hostnames: [a.example], rules: [{backendRefs: [{name: gone, port: 80}]}]}"), []string{"TLSRoute shop/a: Service shop/gone does not exist"}},
		{route("Gateway", "a", "{gatewayClassName: istio, listeners: [{name: web, port: 80, protocol: HTTP}]}"), []string{"Gateway shop/a: its class istio is not one of waypoints: nobody runs it here"}},
		{istio("networking", "VirtualService", "a", "{hosts: [gone], http: [{route: [{destination: {host: web}}]}]}"), []string{"VirtualService shop/a: No service has the host gone.shop.svc.cluster.local"}},
		{istio("networking", "VirtualService", "a", "{hosts: [web, gone], http: [{route: [{destination: {host: web}}]}]}"), []string{
			"VirtualService shop/a: It decides on what comes to Service shop/web through the waypoint shop/wp. spec.hosts[1]: no service has the host gone.shop.svc.cluster.local"}},
		{istio("networking", "VirtualService", "a", "{hosts: [web], http: [{route: [{destination: {host: gone}}]}]}"), []string{
			"VirtualService shop/a: It decides on what comes to Service shop/web through the waypoint shop/wp. route 0: no service has the host gone.shop.svc.cluster.local: its share gets 500"}},
		{istio("networking", "VirtualService", "a", "{hosts: [web], http: [{route: [{destination: {host: web, subset: v9}}]}]}"), []string{
			"VirtualService shop/a: It decides on what comes to Service shop/web through the waypoint shop/wp. spec.http[0].route[0].destination.subset: no DestinationRule of web.shop.svc.cluster.local has a subset v9: its share gets 503"}},
		{istio("networking", "VirtualService", "a", "{hosts: [web], gateways: [public], http: [{route: [{destination: {host: web}}]}]}"), []string{
			`VirtualService shop/a: It is for the gateways public and not for the mesh: without the gateway "mesh", or with no spec.gateways, waypoints do not act on it`}},
		{istio("networking", "VirtualService", "a", "{hosts: [web], gateways: [public, mesh], http: [{route: [{destination: {host: web}}]}]}"), []string{
			"VirtualService shop/a: spec.gateways[0]: the gateway public is none of the mesh, and nobody runs it here"}},
		{istio("networking", "DestinationRule", "a", "{host: gone}"), []string{"DestinationRule shop/a: No service has the host gone.shop.svc.cluster.local"}},
		{istio("telemetry", "Telemetry", "a", `{targetRefs: [{group: "", kind: Service, name: gone}], accessLogging: [{}]}`), []string{"Telemetry shop/a: Service shop/gone does not exist"}},
		{istio("telemetry", "Telemetry", "a", "{tracing: [{providers: [{name: gone}]}]}"), []string{`Telemetry shop/a: Waypoints report by it. tracing: no provider "gone" is known: nothing is traced`}},
		{istio("security", "AuthorizationPolicy", "a", "{targetRefs: ["+gone+"], rules: [{}]}"), []string{"AuthorizationPolicy shop/a: Service shop/gone does not exist"}},
		{istio("security", "AuthorizationPolicy", "a", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gone}], rules: [{}]}"), []string{"AuthorizationPolicy shop/a: Gateway shop/gone does not exist"}},
		{istio("security", "RequestAuthentication", "a", "{targetRefs: ["+gone+"], jwtRules: [{issuer: i, jwksUri: https://keys.example.com}]}"), []string{"RequestAuthentication shop/a: Service shop/gone does not exist"}},
		{route("BackendTLSPolicy", "a", "{targetRefs: ["+gone+"], validation: {hostname: a.example, wellKnownCACertificates: System}}"), []string{"BackendTLSPolicy shop/a: Service shop/gone does not exist"}},
		{own("RateLimitPolicy", "shop", "a", "{targetRefs: ["+gone+"], "+limits+"}"), []string{"RateLimitPolicy shop/a: Service shop/gone does not exist"}},
		{own("RateLimitPolicy", "shop", "a", "{targetRefs: ["+gone+", "+web+"], "+limits+"}"), []string{"RateLimitPolicy shop/a: It holds for its other targets. Service shop/gone does not exist"}},
		{own("RateLimitPolicy", "plain", "a", "{targetRefs: ["+web+"], "+limits+"}"), []string{
			"RateLimitPolicy plain/a: Only waypoints keep limits, and none of its targets is behind one that is ready: nothing is limited"}},
		{own("BackendPolicy", "shop", "a", "{targetRefs: ["+gone+"], loadBalancer: {type: PeakEWMA}}"), []string{"BackendPolicy shop/a: Service shop/gone does not exist"}},
		{own("FaultPolicy", "shop", "a", "{targetRefs: ["+gone+"], delay: {duration: 1s}}"), []string{"FaultPolicy shop/a: Service shop/gone does not exist"}},
		{own("FaultPolicy", "plain", "a", "{targetRefs: ["+web+"], delay: {duration: 1s}}"), []string{
			`FaultPolicy plain/a: Namespace plain does not allow faults: it has no label policy.tulle.dev/allow-faults: "true"`}},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: plain, labels: {istio.io/use-waypoint: gone}}\nspec: {clusterIP: 10.96.0.5, ports: [{name: http, port: 80}]}\n", []string{
			"Service plain/a: Gateway plain/gone does not exist; traffic goes on without a waypoint"}},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {istio.io/use-waypoint: gone}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: other}\nspec: {clusterIP: 10.96.0.5, ports: [{name: http, port: 80}]}\n", []string{
			"Namespace other: it asks for the waypoint other/gone and does not get it: Gateway other/gone does not exist; traffic goes on without a waypoint"}},
	} {
		if got := told(whole + "---\n" + c.object); !slices.Equal(got, c.want) {
			t.Errorf("%s\ntold:\n%s\nwant:\n%s", c.object, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		if got := told(whole); len(got) > 0 {
			t.Errorf("mended, and told still: %q", got)
		}
	}
}

// TestWarningsGoWhenTheWaypointIsReady has nothing change but a waypoint's pod.
func TestWarningsGoWhenTheWaypointIsReady(t *testing.T) {
	text := whole + "---\n" + route("HTTPRoute", "a", `{parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}`)
	warner := &status.Warner{}
	for _, c := range []struct {
		ready string
		want  int
	}{{"False", 1}, {"False", 1}, {"True", 0}, {"False", 1}} {
		if got := warner.Warnings(files(t, strings.Replace(text, `status: "True"`, `status: "`+c.ready+`"`, 1))); len(got) != c.want {
			t.Errorf("ready %s: %v", c.ready, got)
		}
	}
}
