package translate_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// FuzzRoutes translates specs that no API server has checked. Every match must lead
// to a rule, and every backend to a service or a fault.
func FuzzRoutes(f *testing.F) {
	const parents = `"parentRefs":[{"group":"","kind":"Service","name":"web"}]`
	for _, seed := range []string{
		`{` + parents + `,"rules":[{"matches":[{"path":{"type":"PathPrefix","value":"/a"},"headers":[{"name":"X","value":"y"}],"method":"GET"}],"backendRefs":[{"name":"web","port":80,"weight":2}]}]}`,
		`{` + parents + `,"rules":[{"matches":[{"path":{"type":"RegularExpression","value":"["}},{"path":{}},{}],"filters":[{"type":"URLRewrite"},{"type":"RequestRedirect","requestRedirect":{"path":{"type":"X"}}}]}]}`,
		`{` + parents + `,"rules":[{"filters":[{"type":"RequestMirror","requestMirror":{"backendRef":{"name":"web","port":80},"fraction":{"numerator":-1,"denominator":0}}}],"timeouts":{"request":"-1s"},"retry":{"attempts":-1,"codes":[-5]}}]}`,
		`{` + parents + `,"rules":[{"matches":[{"method":{"service":"a.B","method":"C"}},{"method":{"type":"RegularExpression","method":"("}},{"method":{"type":"X"}}],"sessionPersistence":{"type":"Header"}}]}`,
		`{` + parents + `,"hostnames":["*.a","a"],"rules":[{"backendRefs":[{"name":"web"},{"name":"","port":0,"kind":"X"}]},{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, spec []byte) {
		r := newRouted(t)
		put := func(obj interface {
			SetName(string)
			SetNamespace(string)
		}, into any) bool {
			obj.SetName("r")
			obj.SetNamespace("shop")
			return json.Unmarshal(spec, into) == nil
		}
		http, grpc, tcp, tls := &gatewayv1.HTTPRoute{}, &gatewayv1.GRPCRoute{}, &gatewayv1.TCPRoute{}, &gatewayv1.TLSRoute{}
		if put(http, &http.Spec) {
			r.store.Put(http)
		}
		if put(grpc, &grpc.Spec) {
			r.store.Put(grpc)
		}
		if put(tcp, &tcp.Spec) {
			r.store.Put(tcp)
		}
		if put(tls, &tls.Spec) {
			r.store.Put(tls)
		}
		objects := r.store.Objects()
		for _, res := range translate.Translate(objects, translate.Options{}).WaypointServices {
			if _, err := proto.Marshal(res.Body); err != nil {
				t.Fatal(err)
			}
			for _, port := range res.Body.(*apiwaypoint.Service).GetPorts() {
				for _, table := range port.GetRoutes() {
					for _, m := range table.GetMatches() {
						if int(m.GetRule()) >= len(table.GetRules()) {
							t.Fatalf("a match leads to the rule %d of %d", m.GetRule(), len(table.GetRules()))
						}
					}
					for _, rule := range table.GetRules() {
						for _, b := range rule.GetBackends() {
							if (b.GetService() == "") == (b.GetFault() == "") || (b.GetService() != "") != (b.GetPort() != 0) {
								t.Fatalf("a backend %v", b)
							}
						}
					}
				}
			}
		}
		b := translate.NewBackends(objects, translate.Options{})
		b.Check(http)
		b.Check(grpc)
		b.Check(tcp)
		b.Check(tls)
	})
}

// FuzzTraffic translates VirtualServices and DestinationRules as an API server sends
// them, with all that is not understood left out. What comes of them must hold together
// as what comes of routes.
func FuzzTraffic(f *testing.F) {
	for _, seed := range []string{
		`{"spec":{"hosts":["web"],"http":[{"match":[{"uri":{"prefix":"/a"},"headers":{"x":{"regex":"["}},"sourceNamespace":"other"}],"rewrite":{"uri":"/b"},"route":[{"destination":{"host":"web","subset":"a"},"weight":-1},{"destination":{"host":"gone","port":{"number":99999}}}]}]}}`,
		`{"spec":{"hosts":["*","web"],"http":[{"redirect":{"uri":"x?y","authority":"a:b:c","redirectCode":7}},{"directResponse":{"status":1}},{"delegate":{"name":"x"}},{"fault":{"delay":{"percentage":{"value":1e9}},"abort":{"grpcStatus":"?"}}},{"mirror":{"host":"web"},"mirrorPercentage":{"value":-1},"corsPolicy":{"allowOrigins":[{}]}}]}}`,
		`{"spec":{"host":"web","trafficPolicy":{"loadBalancer":{"consistentHash":{}},"portLevelSettings":[{"port":{"number":80}}],"tls":{"mode":"MUTUAL"}},"subsets":[{"name":"a","labels":{"app":"web"}},{"name":"a"}]}}`,
		`{"spec":{"hosts":["web"],"tls":[{"match":[{"sniHosts":["*"]}]}],"tcp":[{"match":[{"port":80}],"route":[{"destination":{"host":"web"}}]}]}}`,
	} {
		f.Add([]byte(seed))
	}
	check := source.Checker{RootNamespace: "istio-system", Served: true}
	f.Fuzz(func(t *testing.T, object []byte) {
		r := newRouted(t)
		vs, dr := &networkingv1.VirtualService{}, &networkingv1.DestinationRule{}
		check.Decode(object, vs)
		check.Decode(object, dr)
		vs.Namespace, vs.Name, dr.Namespace, dr.Name = "shop", "x", "shop", "x"
		r.store.Put(vs)
		r.store.Put(dr)
		objects := r.store.Objects()
		mesh := translate.Translate(objects, translate.Options{})
		for _, res := range mesh.WaypointServices {
			if !json.Valid([]byte(protojson.Format(res.Body))) {
				t.Fatal("it has no form in JSON")
			}
			for _, port := range res.Body.(*apiwaypoint.Service).GetPorts() {
				for _, table := range port.GetRoutes() {
					for _, m := range table.GetMatches() {
						if int(m.GetRule()) >= len(table.GetRules()) {
							t.Fatalf("a match leads to the rule %d of %d", m.GetRule(), len(table.GetRules()))
						}
					}
					for _, rule := range table.GetRules() {
						for _, b := range rule.GetBackends() {
							if (b.GetService() == "") == (b.GetFault() == "") || (b.GetService() != "") != (b.GetPort() != 0) {
								t.Fatalf("a backend %v", b)
							}
						}
					}
				}
			}
		}
		for _, res := range mesh.WaypointDestinations {
			if _, err := proto.Marshal(res.Body); err != nil {
				t.Fatal(err)
			}
		}
		b, x := translate.NewBackends(objects, translate.Options{}), translate.WaypointsOf(objects, translate.Options{})
		b.JudgeVirtual(x, vs)
		b.VirtualFaults(x, vs)
		b.JudgeRule(x, dr)
		translate.RuleGaps(dr)
		translate.VirtualGaps(vs)
	})
}
