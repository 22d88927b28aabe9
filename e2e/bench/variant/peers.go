package variant

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// The proxies of others do the same job: each takes HTTP/1.1, HTTP/2 by prior knowledge
// and gRPC on a port of its own, keeps connections to the applications, adds an id of
// the request where it can, and writes no access log. They use both cores, as by default.

// nginxHead goes before the servers of a configuration; %[1]s is the folder for what
// nginx writes.
const nginxHead = `worker_processes %[2]s;
daemon off;
pid %[1]s/nginx-%[3]s.pid;
error_log stderr error;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path %[1]s/nginx-body;
  proxy_temp_path %[1]s/nginx-proxy;
  fastcgi_temp_path %[1]s/nginx-fastcgi;
  uwsgi_temp_path %[1]s/nginx-uwsgi;
  scgi_temp_path %[1]s/nginx-scgi;
`

// nginxBackend is the application.
func nginxBackend(dir string) string {
	return fmt.Sprintf(nginxHead+`  default_type text/plain;
  server { listen %[4]d backlog=4096; location / { return 200 "%[6]s"; } }
  server { listen %[5]d http2 backlog=4096; location / { return 200 "%[6]s"; } }
}
`, dir, "1", "backend", webPort, web2Port, strings.Repeat("x", 1<<10))
}

// nginx asks applications over HTTP/1.1, and over HTTP/2 those of gRPC.
type nginx struct{ processes }

// Name implements Variant.
func (*nginx) Name() string { return "nginx" }

// Start implements Variant.
func (n *nginx) Start(_ context.Context, t *topology.Topology) (Running, error) {
	program, err := find("nginx")
	if err != nil {
		return Running{}, fmt.Errorf("%w: apt-get install nginx-light", err)
	}
	const location = `location / { proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection ""; ` +
		`proxy_set_header Host $host; proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-Proto $scheme; }`
	path, err := n.write("nginx-proxy.conf", fmt.Sprintf(nginxHead+`  upstream web { server %[4]s; keepalive 256; keepalive_requests 1000000000; }
  upstream calls { server %[5]s; keepalive 256; keepalive_requests 1000000000; }
  server { listen %[6]d backlog=4096; %[9]s }
  server { listen %[7]d http2 backlog=4096; %[9]s }
  server { listen %[8]d http2 backlog=4096; location / { grpc_pass grpc://calls; grpc_set_header X-Request-Id $request_id; grpc_set_header X-Forwarded-Proto $scheme; } }
}
`, n.dir, "auto", "proxy", at(topology.ServerAddr, webPort), at(topology.ServerAddr, grpcPort), listenHTTP1, listenHTTP2, listenGRPC, location))
	if err != nil {
		return Running{}, err
	}
	pid, err := n.start(t.Waypoint, nil, program, "-c", path)
	return Running{HTTP: proxied(), Proxies: []int{pid}}, err
}

// haproxyHTTP is HAProxy that reads requests.
type haproxyHTTP struct{ processes }

// Name implements Variant.
func (*haproxyHTTP) Name() string { return "haproxy" }

// Start implements Variant.
func (h *haproxyHTTP) Start(_ context.Context, t *topology.Topology) (Running, error) {
	program, err := find("haproxy")
	if err != nil {
		return Running{}, fmt.Errorf("%w: apt-get install haproxy", err)
	}
	path, err := h.write("haproxy-http.cfg", fmt.Sprintf(`global
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  unique-id-format %%{+X}o%%ci%%cp%%ts%%rt
  unique-id-header x-request-id
listen web
  bind :%d
  http-request set-header x-forwarded-proto http
  server web %s
listen web2
  bind :%d proto h2
  http-request set-header x-forwarded-proto http
  server web %s
listen calls
  bind :%d proto h2
  http-request set-header x-forwarded-proto http
  server calls %s proto h2
`, listenHTTP1, at(topology.ServerAddr, webPort), listenHTTP2, at(topology.ServerAddr, webPort), listenGRPC, at(topology.ServerAddr, grpcPort)))
	if err != nil {
		return Running{}, err
	}
	pid, err := h.start(t.Waypoint, nil, program, "-db", "-f", path)
	return Running{HTTP: proxied(), Proxies: []int{pid}}, err
}

// idleConns is how many connections to an application the proxies in Go keep: without
// it they would dial anew for most of the requests.
const idleConns = 256

// caddy is Caddy.
type caddy struct {
	processes
	program string
}

// Name implements Variant.
func (*caddy) Name() string { return "caddy" }

// Start implements Variant.
func (c *caddy) Start(_ context.Context, t *topology.Topology) (Running, error) {
	if _, err := os.Stat(c.program); err != nil {
		return Running{}, fmt.Errorf("%w: %s: make bench-peers", ErrMissing, c.program)
	}
	path, err := c.write("Caddyfile", fmt.Sprintf(`{
  admin off
  auto_https off
  persist_config off
  log {
    level ERROR
  }
  servers {
    protocols h1 h2c
  }
}
(keep) {
  transport http {
    keepalive_idle_conns_per_host %[1]d
  }
}
http://:%[2]d, http://:%[3]d {
  reverse_proxy %[5]s {
    import keep
  }
}
http://:%[4]d {
  reverse_proxy h2c://%[6]s
}
`, idleConns, listenHTTP1, listenHTTP2, listenGRPC, at(topology.ServerAddr, webPort), at(topology.ServerAddr, grpcPort)))
	if err != nil {
		return Running{}, err
	}
	env := []string{"HOME=" + c.dir, "XDG_CONFIG_HOME=" + c.dir, "XDG_DATA_HOME=" + c.dir}
	pid, err := c.start(t.Waypoint, env, c.program, "run", "--adapter", "caddyfile", "--config", path)
	return Running{HTTP: proxied(), Proxies: []int{pid}}, err
}

// traefik is Traefik.
type traefik struct {
	processes
	program string
}

// Name implements Variant.
func (*traefik) Name() string { return "traefik" }

// Start implements Variant.
func (p *traefik) Start(_ context.Context, t *topology.Topology) (Running, error) {
	if _, err := os.Stat(p.program); err != nil {
		return Running{}, fmt.Errorf("%w: %s: make bench-peers", ErrMissing, p.program)
	}
	rules, err := p.write("traefik-rules.yaml", fmt.Sprintf(`http:
  routers:
    web: {rule: "PathPrefix(`+"`/`"+`)", entryPoints: [web, web2], service: web}
    calls: {rule: "PathPrefix(`+"`/`"+`)", entryPoints: [calls], service: calls}
  services:
    web: {loadBalancer: {servers: [{url: "http://%s"}]}}
    calls: {loadBalancer: {servers: [{url: "h2c://%s"}]}}
`, at(topology.ServerAddr, webPort), at(topology.ServerAddr, grpcPort)))
	if err != nil {
		return Running{}, err
	}
	path, err := p.write("traefik.yaml", fmt.Sprintf(`global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints:
  web: {address: ":%d"}
  web2: {address: ":%d"}
  calls: {address: ":%d"}
providers: {file: {filename: %q, watch: false}}
serversTransport: {maxIdleConnsPerHost: %d}
`, listenHTTP1, listenHTTP2, listenGRPC, rules, idleConns))
	if err != nil {
		return Running{}, err
	}
	pid, err := p.start(t.Waypoint, []string{"HOME=" + p.dir}, p.program, "--configfile="+path)
	return Running{HTTP: proxied(), Proxies: []int{pid}}, err
}
