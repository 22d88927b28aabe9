package variant

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
)

// HAProxy is a pair of HAProxy with mutual TLS between them: what a seasoned
// proxy in C with OpenSSL needs for the same job, a TLS connection for each
// connection.
type HAProxy struct{ processes }

// Name implements Variant.
func (*HAProxy) Name() string { return "haproxy" }

// haproxyConfig takes: the bind line's options and address, the server line's.
// TLS 1.3 with AES-128-GCM, as ztunnel negotiates on machines with AES instructions.
const haproxyConfig = `global
  nbthread 2
  maxconn 8000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen bench
  bind %s
  server next %s
`

const haproxyTLS = " ssl crt %[1]s ca-file %[2]s verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256"

// Start implements Variant.
func (h *HAProxy) Start(_ context.Context, t *topology.Topology) (Running, error) {
	program, err := find("haproxy")
	if err != nil {
		return Running{}, fmt.Errorf("%w: apt-get install haproxy", err)
	}
	ca, cert, err := writeCertificates(h.dir)
	if err != nil {
		return Running{}, err
	}
	tls := fmt.Sprintf(haproxyTLS, cert, ca)
	b, err := h.startOne(t.NodeB, program, at(topology.NodeBAddr, hopPort)+tls, at(topology.ServerAddr, load.Port))
	if err != nil {
		return Running{}, err
	}
	a, err := h.startOne(t.NodeA, program, at(topology.ClientNode, hopPort), at(topology.NodeBAddr, hopPort)+tls)
	if err != nil {
		return Running{}, err
	}
	return Running{Addr: at(topology.ClientNode, hopPort), Proxies: []int{a, b}}, nil
}

func (h *HAProxy) startOne(ns *topology.Namespace, program, bind, next string) (int, error) {
	path := filepath.Join(h.dir, "haproxy-"+ns.Name+".cfg")
	if err := os.WriteFile(path, fmt.Appendf(nil, haproxyConfig, bind, next), 0o600); err != nil {
		return 0, err
	}
	return h.start(ns, nil, program, "-db", "-f", path)
}
