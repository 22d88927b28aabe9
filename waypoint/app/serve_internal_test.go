package app

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/certs/forge"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/listener"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/report"
	"github.com/tulle-mesh/tulle/waypoint/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPatience = 20 * time.Second

const (
	waypointID = "spiffe://cluster.local/ns/shop/sa/waypoint"
	clientID   = "spiffe://cluster.local/ns/shop/sa/client"
)

// ready is a certificate that is there.
type ready struct{}

func (ready) Ready(context.Context) error { return nil }

// field is a waypoint that is reached as in a mesh, by tunnels with certificates, on an
// address of this process alone. Its control plane is the test.
type field struct {
	*waypoint
	t         *testing.T
	host      netip.Addr
	dial      *tunnel.Dialer
	own       *x509svid.SVID // the client's
	addresses xdsclient.Handler
}

func newField(t *testing.T) *field {
	t.Helper()
	pid := os.Getpid()
	f := &field{t: t, host: netip.AddrFrom4([4]byte{127, 1 + byte(pid>>16&0x7f), byte(pid >> 8), byte(pid)})}
	ca := forge.Root(t, "cluster.local").Intermediate(t)
	own := ca.Leaf(t, waypointID)
	log := zaptest.NewLogger(t)
	store := state.New(state.Config{})
	w := &waypoint{log: log, drain: lifecycle.NewDrain(), keys: jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(nil)})}
	w.dialer = tunnel.NewDialer(tunnel.Config{SVID: own, Bundles: ca.Bundle()})
	w.mesh = mesh.New(mesh.Config{Store: store, Dialer: dialer{w.dialer}, Namespace: "shop", Pod: "waypoint", Keys: w.keys, Logger: log})
	var err error
	if w.report, err = report.New(report.Config{Output: io.Discard}); err != nil {
		t.Fatal(err)
	}
	w.forward = forward.New(forward.Config{Mesh: w.mesh, Identity: spiffeid.RequireFromString(waypointID), Logger: log})
	w.http1, w.http2 = &http1.Server{Handler: w.forward.Serve}, &http2.Server{Handler: w.forward.Serve}
	w.listener = listener.New(listener.Config{
		Gate:    handshake.NewGate(handshake.Config{TLS: mtls.Server(own, ca.Bundle()), Certificate: ready{}}),
		Handler: w.serve, Drain: w.drain, Logger: log,
	})
	f.waypoint, f.addresses = w, store.AddressHandler()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(f.host, 15008).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{}, 2)
	go func() {
		_ = w.listener.Serve(ctx, ln)
		served <- struct{}{}
	}()
	go func() {
		_ = w.mesh.Run(ctx)
		served <- struct{}{}
	}()
	f.own = ca.Leaf(t, clientID)
	f.dial = tunnel.NewDialer(tunnel.Config{SVID: f.own, Bundles: ca.Bundle()})
	t.Cleanup(func() {
		now, end := context.WithCancel(context.Background())
		end()
		_ = f.dial.Drain(now)
		cancel()
		<-served
		<-served
		w.forward.Close()
		w.report.Close()
		w.keys.Close()
		_ = w.dialer.Drain(now)
	})
	return f
}

func (f *field) put(h xdsclient.Handler, name string, m proto.Message) {
	f.t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, r := range h.Apply(xdsclient.Delta{Resources: []xdsclient.Resource{{Name: name, Version: "1", Body: body}}}) {
		f.t.Fatalf("%s: %v", r.Name, r.Err)
	}
}

// service is one whose virtual address is the waypoint's own, so that a client's tunnel
// for it comes here, with the ports' protocols and one endpoint.
func (f *field) service(name, endpoint string, routes []*api.RouteTable, ports map[uint32]api.Protocol) {
	f.t.Helper()
	key, host := "shop/"+name, name
	s := &api.Service{Namespace: "shop", Hostname: host, Name: name}
	a := &apiworkload.Service{Name: name, Namespace: "shop", Hostname: host}
	if name == "web" {
		a.Addresses = []*apiworkload.NetworkAddress{{Address: f.host.AsSlice()}}
	}
	at := netip.MustParseAddrPort(endpoint)
	list := &apiworkload.PortList{}
	for port, protocol := range ports {
		s.Ports = append(s.Ports, &api.Port{Port: port, Protocol: protocol, Routes: routes})
		p := &apiworkload.Port{ServicePort: port, TargetPort: uint32(at.Port())}
		a.Ports, list.Ports = append(a.Ports, p), append(list.Ports, p)
	}
	f.put(f.addresses, key, &apiworkload.Address{Type: &apiworkload.Address_Service{Service: a}})
	uid := "Kubernetes//Pod/shop/" + name
	f.put(f.addresses, uid, &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: &apiworkload.Workload{
		Uid: uid, Name: name, Namespace: "shop", Addresses: [][]byte{at.Addr().AsSlice()}, Services: map[string]*apiworkload.PortList{key: list},
	}}})
	f.put(f.mesh.ServiceHandler(), key, s)
}

// connect opens a connection to the service as a client's node proxy does.
func (f *field) connect(port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), testPatience)
	defer cancel()
	return f.dial.Dial(ctx, tunnel.Target{Addr: netip.AddrPortFrom(f.host, port), Identity: spiffeid.RequireFromString(waypointID), Workload: "w"})
}

func (f *field) client(two bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		return f.connect(netip.MustParseAddrPort(addr).Port())
	}}
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetUnencryptedHTTP2(two)
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testPatience}
}

func TestRequestsComeThroughTunnels(t *testing.T) {
	f := newField(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-client", r.Header.Get("x-forwarded-client-cert"))
		_, _ = io.Copy(w, r.Body)
	}))
	defer app.Close()
	f.service("web", strings.TrimPrefix(app.URL, "http://"), nil, map[uint32]api.Protocol{80: api.Protocol_HTTP1})
	cert := fmt.Sprintf(`By=%s;Hash=%x;Subject="%s";URI=%s`, waypointID, sha256.Sum256(f.own.Certificates[0].Raw), f.own.Certificates[0].Subject, clientID)
	for _, two := range []bool{false, true} {
		c := f.client(two)
		for _, content := range []string{"", "short", strings.Repeat("long", 100_000)} {
			r, err := c.Post(fmt.Sprintf("http://%v:80/", f.host), "text/plain", strings.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != 200 || string(got) != content || err != nil || r.Header.Get("x-client") != cert {
				t.Errorf("HTTP/2 %v: %d, %d bytes of %d, %q, %v", two, r.StatusCode, len(got), len(content), r.Header.Get("x-client"), err)
			}
		}
	}
	if _, err := f.connect(81); err == nil {
		t.Error("a port that the service has not is served")
	} else if status, ok := tunnel.Refused(err); !ok || status != 503 {
		t.Errorf("%v", err)
	}
}

// Servers of bytes may speak first: nobody waits for the client.
func TestServersMaySpeakFirst(t *testing.T) {
	f := newField(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 ready\r\n")
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	f.service("web", ln.Addr().String(), nil, map[uint32]api.Protocol{25: api.Protocol_TCP, 443: api.Protocol_TLS, 9: api.Protocol_UNKNOWN})
	for _, port := range []uint16{25, 443, 9} {
		conn, err := f.connect(port)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(testPatience))
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); line != "220 ready\r\n" || err != nil {
			t.Errorf("port %d: %q, %v", port, line, err)
		}
		if _, err := io.WriteString(conn, "QUIT\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadString('\n'); line != "QUIT\n" || err != nil {
			t.Errorf("port %d: %q, %v", port, line, err)
		}
		_ = conn.Close()
	}
}

func TestServerNamesLead(t *testing.T) {
	f := newField(t)
	apps, roots := map[string]*httptest.Server{}, x509.NewCertPool()
	for _, name := range []string{"web", "b"} {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " for ", r.TLS.ServerName) }))
		defer s.Close()
		apps[name] = s
		roots.AddCert(s.Certificate())
	}
	ports := map[uint32]api.Protocol{443: api.Protocol_TLS}
	rule := func(service string) *api.Rule {
		return &api.Rule{Backends: []*api.Backend{{Service: "shop/" + service, Port: 443, Weight: 1}}}
	}
	routes := []*api.RouteTable{{
		Rules:   []*api.Rule{rule("web"), rule("b")},
		Matches: []*api.Match{{Rule: 0, ServerNames: []string{"example.com"}}, {Rule: 1, ServerNames: []string{"*.example.com"}}},
	}}
	f.service("b", strings.TrimPrefix(apps["b"].URL, "https://"), nil, ports)
	f.service("web", strings.TrimPrefix(apps["web"].URL, "https://"), routes, ports)
	ask := func(name string) (string, error) {
		conn, err := f.connect(443)
		if err != nil {
			return "", err
		}
		_ = conn.SetDeadline(time.Now().Add(testPatience))
		secure := tls.Client(conn, &tls.Config{ServerName: name, RootCAs: roots})
		defer secure.Close()
		if _, err := io.WriteString(secure, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			return "", err
		}
		r, err := http.ReadResponse(bufio.NewReader(secure), nil)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(r.Body)
		return string(body), err
	}
	for name, want := range map[string]string{"example.com": "web for example.com", "a.example.com": "b for a.example.com"} {
		if got, err := ask(name); got != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"example.org", ""} {
		if got, err := ask(name); err == nil {
			t.Errorf("%q leads to %q", name, got)
		}
	}
	conn, err := f.connect(443)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testPatience))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("what is no TLS ends with %v", err)
	}
}

// Connections that never say anything hold a drain for a moment, and not to its deadline.
func TestSilentConnectionsHoldNoDrain(t *testing.T) {
	f := newField(t)
	f.service("web", "127.0.0.1:1", nil, map[uint32]api.Protocol{80: api.Protocol_HTTP1})
	conn, err := f.connect(80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	f.silent.drain()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the waypoint spoke first")
		}
	case <-time.After(testPatience):
		t.Error("the silent connection is still there")
	}
}

func TestVersionsAreToldApartByTheFirstWords(t *testing.T) {
	for in, two := range map[string]bool{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": true, "PRI ": true, "PRINT / HTTP/1.1\r\n\r\n": false, "PR": false, "GET / HTTP/1.1\r\n\r\n": false, "P": false,
	} {
		for _, piece := range []int{1, len(in)} {
			near, far := net.Pipe()
			go func() {
				for rest := in; rest != ""; rest = rest[min(piece, len(rest)):] {
					_, _ = io.WriteString(far, rest[:min(piece, len(rest))])
				}
				_ = far.Close()
			}()
			conn, got, err := sniff(near)
			if err != nil || got != two {
				t.Errorf("%q in pieces of %d: %v, %v", in, piece, got, err)
				_ = near.Close()
				continue
			}
			if all, _ := io.ReadAll(conn); string(all) != in {
				t.Errorf("%q became %q", in, all)
			}
		}
	}
}
