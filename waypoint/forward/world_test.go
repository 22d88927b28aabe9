package forward_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/state"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/forward"
	"github.com/tulle-mesh/tulle/waypoint/http1"
	"github.com/tulle-mesh/tulle/waypoint/http2"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/mesh"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/trace"
	"github.com/tulle-mesh/tulle/waypoint/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = 30 * time.Second

// plain connects to endpoints by TCP, as to those outside the mesh.
type plain struct{}

func (plain) Dial(ctx context.Context, to *upstream.Endpoint, p upstream.Protocol) (message.Client, error) {
	alpn := "http/1.1"
	if p == upstream.HTTP2 {
		alpn = "h2"
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr.String())
	if err == nil && to.Secure != nil {
		conn, err = to.Secure.Secure(ctx, conn, alpn)
	}
	if err != nil {
		return nil, err
	}
	if p == upstream.HTTP2 {
		return http2.NewClient(conn, http2.ClientConfig{})
	}
	return http1.NewClient(conn, http1.ClientConfig{})
}

// world is a waypoint's forwarder with services whose endpoints are servers of the
// test, in front of which clients connect to addr.
type world struct {
	t       testing.TB
	mesh    *mesh.Mesh
	forward *forward.Forwarder
	tracer  *trace.Tracer
	url     string

	addresses xdsclient.Handler
	mu        sync.Mutex
	records   []forward.Record
}

// client is who all clients of these tests are.
var client = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/client")

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, tracer: trace.NewTracer()}
	store := state.New(state.Config{})
	keys := jwt.NewKeys(jwt.Config{Fetcher: jwt.NewHTTPFetcher(nil)})
	w.mesh = mesh.New(mesh.Config{Store: store, Dialer: plain{}, Namespace: "shop", Pod: "waypoint", Keys: keys, Logger: zaptest.NewLogger(t)})
	w.addresses = store.AddressHandler()
	w.forward = forward.New(forward.Config{
		Mesh: w.mesh, Identity: spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/waypoint"), Logger: zaptest.NewLogger(t), Tracer: w.tracer,
		Report: func(r *forward.Record) {
			if _, bench := t.(*testing.B); bench {
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, *r)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.mesh.Run(ctx) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String()
	peer, err := request.NewPeer(client)
	if err != nil {
		t.Fatal(err)
	}
	serving := forward.WithClient(ctx, &forward.Client{
		Identity: client, Peer: peer, Source: netip.MustParseAddrPort("10.0.0.9:40000"),
		Destination: netip.MustParseAddrPort("10.96.0.1:80"), Service: key("web"), Port: 80,
	})
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				first := make([]byte, 3)
				if _, err := io.ReadFull(conn, first); err != nil {
					_ = conn.Close()
					return
				}
				c := &started{Conn: conn, first: first}
				if string(first) == "PRI" {
					_ = http2.Serve(serving, c, http2.ServerConfig{}, w.forward.Serve)
				} else {
					_ = http1.Serve(serving, c, http1.ServerConfig{}, w.forward.Serve)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		w.forward.Close()
		cancel()
		wg.Wait()
		keys.Close()
	})
	return w
}

// started is a connection whose first bytes were read.
type started struct {
	net.Conn
	first []byte
}

func (c *started) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite passes half-closes on.
func (c *started) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// SetLinger passes on that a connection is to be reset.
func (c *started) SetLinger(sec int) error { return c.Conn.(*net.TCPConn).SetLinger(sec) }

func key(name string) workload.ServiceKey {
	return workload.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc"}
}

func packed(t testing.TB, name string, m proto.Message) xdsclient.Resource {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return xdsclient.Resource{Name: name, Version: "1", Body: body}
}

func (w *world) taken(rejected []xdsclient.Rejection) {
	w.t.Helper()
	for _, r := range rejected {
		w.t.Fatalf("%s: %v", r.Name, r.Err)
	}
}

// service gives a service endpoints, of which each is a server of its own.
func (w *world) service(name string, protocol apiworkload.AppProtocol, endpoints ...string) {
	w.t.Helper()
	s := &apiworkload.Service{
		Name: name, Namespace: "shop", Hostname: key(name).Hostname,
		Ports: []*apiworkload.Port{{ServicePort: 80, AppProtocol: protocol}},
	}
	resources := []xdsclient.Resource{packed(w.t, key(name).String(), &apiworkload.Address{Type: &apiworkload.Address_Service{Service: s}})}
	for i, e := range endpoints {
		at := netip.MustParseAddrPort(e)
		uid := "Kubernetes//Pod/shop/" + name + "-" + string(rune('0'+i))
		resources = append(resources, packed(w.t, uid, &apiworkload.Address{Type: &apiworkload.Address_Workload{Workload: &apiworkload.Workload{
			Uid: uid, Name: name, Namespace: "shop", Addresses: [][]byte{at.Addr().AsSlice()},
			Services: map[string]*apiworkload.PortList{key(name).String(): {Ports: []*apiworkload.Port{{ServicePort: 80, TargetPort: uint32(at.Port()), AppProtocol: protocol}}}},
		}}}))
	}
	w.taken(w.addresses.Apply(xdsclient.Delta{Resources: resources}))
}

// routes puts the routes of web:80 in force.
func (w *world) routes(tables ...*api.RouteTable) {
	w.t.Helper()
	w.serve(&api.Service{
		Namespace: "shop", Hostname: key("web").Hostname, Name: "web",
		Ports: []*api.Port{{Port: 80, Protocol: api.Protocol_HTTP1, Routes: tables}},
	})
}

func (w *world) serve(s *api.Service) {
	w.t.Helper()
	w.taken(w.mesh.ServiceHandler().Apply(xdsclient.Delta{Resources: []xdsclient.Resource{packed(w.t, key("web").String(), s)}}))
}

// rule is a table with one rule for all requests.
func rule(r *api.Rule) *api.RouteTable {
	r.Ref = &api.RouteRef{Kind: "HTTPRoute", Namespace: "shop", Name: "web", Rule: "0"}
	return &api.RouteTable{Rules: []*api.Rule{r}, Matches: []*api.Match{{}}}
}

func backend(name string, weight uint32) *api.Backend {
	return &api.Backend{Service: key(name).String(), Port: 80, Weight: weight}
}

// recorded waits for the record of a request that fits.
func (w *world) recorded(fits func(forward.Record) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		records := slices.Clone(w.records)
		w.mu.Unlock()
		if slices.ContainsFunc(records, fits) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no such record among %+v", records)
		}
	}
}

// app runs a server and returns where.
func app(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// nowhere is an address where nobody listens, nor will: it has a host of its own.
func nowhere(t testing.TB) string {
	t.Helper()
	pid := os.Getpid()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// httpClient speaks HTTP/1.1, or HTTP/2 by prior knowledge.
func httpClient(t testing.TB, two bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetUnencryptedHTTP2(two)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}
