package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/admin"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/explain"
)

// ask gets an explanation from a node's admin interface.
func ask[T any](t *testing.T, p *pods, path string) T {
	t.Helper()
	srv, err := admin.New(admin.Config{Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	z := &ztunnel{cfg: p.cfg, store: p.store, pods: p}
	z.explainPages(srv)
	w := httptest.NewRecorder()
	srv.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	var out T
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What is explained has to be what happens.
func TestExplanationsAndConnectionsAgree(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, other, server := w.meshPod("client", "n1"), w.meshPod("other", "n1"), w.meshPod("server", "n2")
	stranger := w.addPod("stranger", "n1")
	w.announce(w.workload(stranger, api.TunnelProtocol_NONE))
	w.serve(server, 7001, greet)
	w.service(&api.Service{Name: "web", Namespace: "shop", Hostname: "web.shop.svc", Ports: []*api.Port{{ServicePort: 80, TargetPort: 7001}},
		Addresses: []*api.NetworkAddress{{Address: netip.MustParseAddr("10.96.0.1").AsSlice()}}})
	member := w.workload(server, api.TunnelProtocol_HBONE)
	member.Services = map[string]*api.PortList{"shop/web.shop.svc": {}}
	w.announce(member)
	w.policy(denyClient("no-other", "other"))
	w.policy(denyClient("strict", ""))

	for _, tt := range []struct {
		client *testPod
		meshed bool
		policy string
	}{{client, true, ""}, {other, true, "shop/no-other"}, {stranger, false, "shop/strict"}} {
		t.Run(tt.client.name, func(t *testing.T) {
			out := ask[explain.OutboundAnswer](t, w.nodes["n1"], "/explain/outbound?client=shop/"+tt.client.name+"&service=shop/web.shop.svc&port=80")
			if out.Captured != tt.meshed || out.Node != "n1" || len(out.Ways) != 1 {
				t.Fatalf("outbound: %+v", out)
			}
			way := out.Ways[0]
			if way.Kind != "hbone" || way.Upstream != server.at(7001) || way.Share != 1 || way.SameNode || way.Service != "shop/web.shop.svc" {
				t.Errorf("way: %+v", way)
			}
			identity := ""
			if tt.meshed {
				identity = "&identity=" + out.Client.Identity
			}
			in := ask[explain.InboundAnswer](t, w.nodes["n2"], "/explain/inbound?server=shop/server&dest="+way.Upstream.String()+"&source="+tt.client.v4.String()+identity)
			if !in.Captured || in.Allowed != (tt.policy == "") || in.Policy != tt.policy || len(in.Policies) != 2 {
				t.Errorf("inbound: %+v", in)
			}
			for _, v := range in.Policies {
				if v.Decides != (v.Policy == tt.policy) || v.Matched != v.Decides || v.Reason == "" {
					t.Errorf("verdict %+v", v)
				}
			}
			dest := netip.MustParseAddrPort("10.96.0.1:80")
			if !tt.meshed {
				dest = server.at(7001)
			}
			if in.Allowed {
				if got := readAll(t, w.dial(tt.client, dest)); got != tt.client.v4.String() {
					t.Errorf("the server sees %q", got)
				}
			} else {
				w.refusedDial(tt.client, dest)
			}
		})
	}
	t.Run("what the proxy refuses besides policies", func(t *testing.T) {
		in := ask[explain.InboundAnswer](t, w.nodes["n2"], "/explain/inbound?server=shop/server&dest=10.99.0.1:80&source="+client.v4.String())
		if in.Allowed || !strings.Contains(in.Reason, "not an address of pod") || in.Policy != "" {
			t.Errorf("%+v", in)
		}
	})
	t.Run("same node", func(t *testing.T) {
		out := ask[explain.OutboundAnswer](t, w.nodes["n1"], "/explain/outbound?client=shop/client&dest="+other.at(80).String())
		if len(out.Ways) != 1 || !out.Ways[0].SameNode {
			t.Errorf("%+v", out)
		}
	})
}

func TestExplainRefusesQuestionsThatItCannotRead(t *testing.T) {
	srv, err := admin.New(admin.Config{Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	(&ztunnel{}).explainPages(srv)
	for path, want := range map[string]string{
		"/explain/outbound":                                                    `client=""`,
		"/explain/outbound?client=a/b/c":                                       `client="a/b/c"`,
		"/explain/outbound?client=a/b&dest=x":                                  "dest=",
		"/explain/outbound?client=a/b&service=x":                               `service="x"`,
		"/explain/outbound?client=a/b&service=a/x":                             `port=""`,
		"/explain/inbound?server=a/b":                                          "dest=",
		"/explain/inbound?server=a/b&dest=10.0.0.1:80":                         "source=",
		"/explain/inbound?server=a/b&dest=1.1.1.1:1&source=1.1.1.1&identity=x": `identity="x"`,
	} {
		w := httptest.NewRecorder()
		srv.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %q, want it to name %s", path, w.Code, w.Body, want)
		}
	}
}
