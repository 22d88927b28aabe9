package translate_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
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
