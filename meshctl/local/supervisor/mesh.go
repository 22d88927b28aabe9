package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

// Ports of the components, which docs/architecture.md explains.
const (
	portXDS          = 15012
	portIstiodAdmin  = 15014
	portZtunnelAdmin = 15000
	portZtunnelReady = 15021
)

// startComponents starts the control plane and, on every node, agent and
// ztunnel. It does not wait for them: they wait for each other.
func (s *Supervisor) startComponents(ctx context.Context) error {
	if s.settings.NoMesh {
		return nil
	}
	for _, name := range []string{"istiod-lite", "ztunnel", "tulle-agent"} {
		path := filepath.Join(s.settings.BinDir, name)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s is missing: build the mesh with `make build`, or say with --bin-dir where its programs are", path)
		}
	}
	tokens, err := newTokens(s.dir)
	if err != nil {
		return err
	}
	s.tokens = tokens
	for _, n := range s.nodes {
		if err := tokens.write(n.Name, s.dir.Node(n.Name, "token")); err != nil {
			return err
		}
	}
	s.goUntil(ctx, s.renewTokens)

	s.controlPlane = &component{
		name: "istiod-lite", log: []string{"istiod-lite"}, env: s.baseEnv(), ns: s.home,
		argv: append([]string{filepath.Join(s.settings.BinDir, "istiod-lite"),
			"--config-dir", s.dir.Config(),
			"--state-dir", s.dir.Authority(),
			"--listen", fmt.Sprintf(":%d", portXDS),
			"--token-key", tokens.publicFile,
			"--trust-domain", s.settings.TrustDomain,
			"--admin", fmt.Sprintf("localhost:%d", portIstiodAdmin),
		}, s.logLevel()...),
		ask: func(ctx context.Context) error {
			return askHTTP(ctx, s.home, fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", portIstiodAdmin))
		},
	}
	s.startComponent(s.controlPlane)
	for _, n := range s.nodes {
		s.startNode(n)
	}
	return nil
}

func (s *Supervisor) startNode(n *node) {
	root := filepath.Join(s.dir.Authority(), "root-cert.pem")
	zds, api := s.dir.Node(n.Name, "zds.sock"), s.dir.Node(n.Name, "agent.sock")
	n.api = newAgentClient(api)
	n.agent = &component{
		name: "agent", log: []string{n.Name, "agent"}, env: s.baseEnv(), ns: n.net.NS,
		argv: append([]string{filepath.Join(s.settings.BinDir, "tulle-agent"),
			"--zds-socket", zds,
			"--api-socket", api,
			"--state-dir", s.dir.Node(n.Name, "agent"),
		}, s.logLevel()...),
		ask: n.api.ready,
	}
	n.ztunnel = &component{
		name: "ztunnel", needs: root, log: []string{n.Name, "ztunnel"}, env: s.baseEnv(), ns: n.net.NS,
		argv: append(append([]string{filepath.Join(s.settings.BinDir, "ztunnel"),
			"--xds-address", net.JoinHostPort(plan.ControlPlane4.String(), fmt.Sprint(portXDS)),
			"--server-name", "istiod.istio-system.svc",
			"--root-cert", root,
			"--token-file", s.dir.Node(n.Name, "token"),
			"--node", n.Name,
			"--trust-domain", s.settings.TrustDomain,
			"--instance-ip", n.Lan4.Addr().String(),
			"--zds-socket", zds,
		}, s.logLevel()...), s.settings.ZtunnelArgs...),
		ask: func(ctx context.Context) error {
			return askHTTP(ctx, n.net.NS, fmt.Sprintf("http://127.0.0.1:%d/healthz/ready", portZtunnelReady))
		},
	}
	s.startComponent(n.agent)
	s.startComponent(n.ztunnel)
}

func (s *Supervisor) logLevel() []string {
	if s.settings.LogLevel == "" {
		return nil
	}
	return []string{"--log-level", s.settings.LogLevel}
}

// clientIn returns an HTTP client whose connections start inside ns.
func clientIn(ns *netns.NS) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = ns.Do(func() error {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
}

// askHTTP returns nil for the status 200, and else what the answer says.
func askHTTP(ctx context.Context, ns *netns.NS, url string) error {
	return answer(clientIn(ns), ctx, url)
}

func answer(client *http.Client, ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return errors.New("does not answer yet")
		}
		return err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode != http.StatusOK {
		reason := strings.Join(strings.Fields(string(body)), " ")
		if reason == "" {
			reason = res.Status
		}
		return fmt.Errorf("waits for: %s", reason)
	}
	return nil
}
