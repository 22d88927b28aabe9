package variant

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/tulle-mesh/tulle/e2e/bench/plain"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// Where the applications listen in the server pod: HTTP/1.1, the same over HTTP/2 for
// clients that have no proxy before them, and gRPC.
const (
	webPort  = 7000
	web2Port = 7001
	grpcPort = 7002
)

// Where proxies listen: for HTTP/1.1, HTTP/2 and gRPC.
const (
	listenHTTP1 = 9000
	listenHTTP2 = 9001
	listenGRPC  = 9002
)

// HTTP is where clients reach the applications. What they ask for in HTTP/1.1 and
// HTTP/2 is answered by the same server, which proxies ask over HTTP/1.1; gRPC's
// speaks HTTP/2.
type HTTP struct {
	HTTP1, HTTP2, GRPC string
	// Path is asked for, with the lines of Header.
	Path   string
	Header []string
	// Full says that all is measured; else closed loops of HTTP/1.1 alone.
	Full bool
}

// httpPath is a path that the middle one of n routes takes.
func httpPath(n int) string { return plain.RoutePath(n/2) + "/items/42" }

// proxied is the HTTP of a proxy in the waypoint's pod.
func proxied() HTTP {
	return HTTP{
		HTTP1: at(topology.WaypointAddr, listenHTTP1), HTTP2: at(topology.WaypointAddr, listenHTTP2), GRPC: at(topology.WaypointAddr, listenGRPC),
		Path: httpPath(1), Full: true,
	}
}

// HTTPConfig is what the variants of HTTP need to know besides.
type HTTPConfig struct {
	Config
	// Peers is the folder with the programs that are built for the benchmark: caddy, traefik.
	Peers string
	// Debug is the address where the waypoint without tunnels serves profiles; empty nowhere.
	Debug string
}

// AllHTTP returns every variant of HTTP, in the order of the table.
func AllHTTP(c HTTPConfig) []Variant {
	p := processes{dir: c.Dir}
	return []Variant{
		directHTTP{},
		&nginx{p},
		&haproxyHTTP{p},
		&caddy{p, filepath.Join(c.Peers, "caddy")},
		&traefik{p, filepath.Join(c.Peers, "traefik")},
		&reverseProxy{p, c.Self},
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint", routes: 1, debug: c.Debug},
		newWaypoint(c.Config),
		// What these are compared with, since they are measured with http1 alone, just started.
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint-1-route", routes: 1},
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint-100-routes", routes: 100},
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint-5000-routes", routes: 5000},
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint-jwt", routes: 1, tokens: true},
		&plainWaypoint{processes: p, self: c.Self, name: "waypoint-ratelimit", routes: 1, limited: true},
	}
}

// Backends are the applications: nginx, and a server of gRPC.
type Backends struct{ processes }

// StartBackends starts them in the server pod. Stop must be called in any case.
func StartBackends(self, dir string, t *topology.Topology) (*Backends, error) {
	b := &Backends{processes{dir: dir}}
	program, err := find("nginx")
	if err != nil {
		return b, fmt.Errorf("%w: apt-get install nginx-light", err)
	}
	path, err := b.write("nginx-backend.conf", nginxBackend(dir))
	if err != nil {
		return b, err
	}
	if _, err := b.start(t.Server, nil, program, "-c", path); err != nil {
		return b, err
	}
	_, err = b.start(t.Server, nil, self, "serve-grpc", netip.AddrPortFrom(topology.ServerAddr, grpcPort).String())
	return b, err
}

// directHTTP is no proxy.
type directHTTP struct{}

// Name implements Variant.
func (directHTTP) Name() string { return "direct" }

// Start implements Variant.
func (directHTTP) Start(context.Context, *topology.Topology) (Running, error) {
	return Running{HTTP: HTTP{
		HTTP1: at(topology.ServerAddr, webPort), HTTP2: at(topology.ServerAddr, web2Port), GRPC: at(topology.ServerAddr, grpcPort),
		Path: httpPath(1), Full: true,
	}}, nil
}

// Stop implements Variant.
func (directHTTP) Stop() {}

// reverseProxy is net/http's server and httputil.ReverseProxy, in this program.
type reverseProxy struct {
	processes
	self string
}

// Name implements Variant.
func (*reverseProxy) Name() string { return "reverseproxy" }

// Start implements Variant.
func (r *reverseProxy) Start(_ context.Context, t *topology.Topology) (Running, error) {
	pid, err := r.start(t.Waypoint, nil, r.self, "reverseproxy",
		at(topology.WaypointAddr, listenHTTP1), at(topology.ServerAddr, webPort), "http1",
		at(topology.WaypointAddr, listenHTTP2), at(topology.ServerAddr, webPort), "http1",
		at(topology.WaypointAddr, listenGRPC), at(topology.ServerAddr, grpcPort), "http2")
	return Running{HTTP: proxied(), Proxies: []int{pid}}, err
}

// plainWaypoint is the waypoint's code without tunnels.
type plainWaypoint struct {
	processes
	self, name      string
	routes          int
	tokens, limited bool
	debug           string
}

// Name implements Variant.
func (w *plainWaypoint) Name() string { return w.name }

// Start implements Variant.
func (w *plainWaypoint) Start(_ context.Context, t *topology.Topology) (Running, error) {
	web, grpc := netip.AddrPortFrom(topology.ServerAddr, webPort), netip.AddrPortFrom(topology.ServerAddr, grpcPort)
	cfg := plain.Config{
		Ports: []plain.Port{
			{Listen: at(topology.WaypointAddr, listenHTTP1), Endpoint: web},
			{Listen: at(topology.WaypointAddr, listenHTTP2), Endpoint: web, HTTP2: true},
			{Listen: at(topology.WaypointAddr, listenGRPC), Endpoint: grpc, HTTP2: true, EndpointHTTP2: true},
		},
		Routes: w.routes, RateLimit: w.limited, Debug: w.debug,
	}
	http := proxied()
	http.Path, http.Full = httpPath(w.routes), w.name == "waypoint"
	if w.tokens {
		keys, token, err := plain.Token()
		if err != nil {
			return Running{}, err
		}
		cfg.JWKS, http.Header = keys, []string{"authorization: Bearer " + token}
	}
	arg, err := json.Marshal(cfg)
	if err != nil {
		return Running{}, err
	}
	pid, err := w.start(t.Waypoint, nil, w.self, "plain", string(arg))
	return Running{HTTP: http, Proxies: []int{pid}}, err
}

// write writes a file of configuration and returns its path.
func (p *processes) write(name, text string) (string, error) {
	path := filepath.Join(p.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
