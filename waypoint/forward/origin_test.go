package forward_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
)

// headerEcho answers with the fields that it got, sorted.
func headerEcho(t *testing.T) string {
	return app(t, func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		for name, values := range r.Header {
			for _, v := range values {
				lines = append(lines, strings.ToLower(name)+": "+v)
			}
		}
		slices.Sort(lines)
		fmt.Fprint(w, strings.Join(lines, "\n"))
	})
}

func TestApplicationsLearnWhoTheClientIsFromTheTunnelAlone(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, headerEcho(t))
	w.routes()
	for _, two := range []bool{false, true} {
		_, body := do(t, httpClient(t, two), "GET", w.url+"/", "", "X-Forwarded-Client-Cert", "By=x;URI=spiffe://cluster.local/ns/a/sa/admin", "X-Request-Id", "mine")
		const want = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client\n"
		if !strings.Contains(body+"\n", want) || strings.Contains(body, "admin") || !strings.Contains(body, "x-request-id: mine") {
			t.Errorf("%s", body)
		}
	}
}

func TestTheProtocolBeforeAGatewayIsHandedOnAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, headerEcho(t))
	w.routes()
	for sent, want := range map[string]string{"": "http", "https": "https", "http": "http", "https, http": "http", "javascript": "http", "HTTPS": "http"} {
		header := []string{"X-Forwarded-For", "203.0.113.9"}
		if sent != "" {
			header = append(header, "X-Forwarded-Proto", sent)
		}
		_, body := do(t, httpClient(t, false), "GET", w.url+"/", "", header...)
		if !strings.Contains(body+"\n", "x-forwarded-proto: "+want+"\n") || strings.Count(body, "x-forwarded-proto") != 1 || !strings.Contains(body, "x-forwarded-for: 203.0.113.9") {
			t.Errorf("%q: %s", sent, body)
		}
	}
}

// TestFieldsInDisguiseDoNotReachApplications has names that gateways to applications
// (CGI, WSGI) turn into the same variables as those of the mesh.
func TestFieldsInDisguiseDoNotReachApplications(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, headerEcho(t))
	w.routes()
	for _, two := range []bool{false, true} {
		_, body := do(t, httpClient(t, two), "GET", w.url+"/", "",
			"X_Forwarded_Client_Cert", "URI=spiffe://evil", "X-Forwarded_For", "1.2.3.4", "X_Real_Ip", "1.2.3.4", "Content_Length", "3", "Transfer_Encoding", "chunked",
			"user_id", "kept", "X_Envoy_Original_Path", "/admin")
		if strings.Contains(body, "evil") || strings.Contains(body, "1.2.3.4") || strings.Contains(body, "/admin") || strings.Contains(body, "content_length") || strings.Contains(body, "transfer_encoding") {
			t.Errorf("%s", body)
		}
		if !strings.Contains(body, "user_id: kept") {
			t.Errorf("an application's own field is gone: %s", body)
		}
	}
}

func TestRemoteAddressesAreThoseThatTrustedProxiesTell(t *testing.T) {
	w := newWorld(t)
	w.service("web", apiworkload.AppProtocol_HTTP11, headerEcho(t))
	c := httpClient(t, false)
	allow := func(block string) *api.Policy {
		return &api.Policy{Name: "allow", Rules: []*api.PolicyRule{{From: []*api.Source{{RemoteIpBlocks: []string{block}}}}}}
	}
	deny := func(block string) *api.Policy {
		p := allow(block)
		p.Action = api.Action_DENY
		return p
	}
	for _, x := range []struct {
		policy  *api.Policy
		trusted uint32
		header  string
		want    int
	}{
		{allow("10.0.0.9"), 0, "", 200},                  // the client of the tunnel
		{allow("203.0.113.0/24"), 0, "203.0.113.7", 403}, // nobody is believed
		{allow("203.0.113.0/24"), 1, "203.0.113.7", 200}, // the gateway is
		{allow("203.0.113.0/24"), 1, "203.0.113.7, 1.1.1.1", 403},
		{allow("203.0.113.0/24"), 2, "9.9.9.9, 203.0.113.7, 1.1.1.1", 200},
		{allow("203.0.113.0/24"), 2, "203.0.113.7", 403}, // it has come through one only
		{allow("203.0.113.0/24"), 1, "203.0.113.7:4711", 200},
		{allow("0.0.0.0/0"), 1, "unknown", 403},
		{allow("2001:db8::/32"), 1, "[2001:db8::1]:80", 200},
		{deny("203.0.113.0/24"), 0, "203.0.113.7", 403}, // a DENY believes everybody
		{deny("203.0.113.0/24"), 0, "203.0.113.7, 1.1.1.1", 403},
		{deny("203.0.113.0/24"), 0, "garbage", 403},
		{deny("203.0.113.0/24"), 0, "1.1.1.1", 200},
		{deny("203.0.113.0/24"), 1, "1.1.1.1", 200},
		{deny("10.0.0.9"), 0, "1.1.1.1", 403},
	} {
		w.policy(x.policy)
		w.serve(&api.Service{
			Namespace: "shop", Hostname: key("web").Hostname, Name: "web", Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1}},
			Policies: []string{"shop/allow"}, TrustedProxies: x.trusted,
		})
		var header []string
		if x.header != "" {
			header = []string{"X-Forwarded-For", x.header}
		}
		if res, _ := do(t, c, "GET", w.url+"/", "", header...); res.StatusCode != x.want {
			t.Errorf("%v, %d trusted, %q: %d", x.policy, x.trusted, x.header, res.StatusCode)
		}
	}
}
