package supervisor

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
)

const (
	ztunnelNamespace = "istio-system"
	ztunnelAccount   = "ztunnel"
	tokenAudience    = "istio-ca"
)

// tokens mints what proves to the control plane which node a ztunnel serves. The
// key is made anew with every supervisor: no token outlives the mesh that it
// was minted for.
type tokens struct {
	key        *nodetoken.Key
	publicFile string
	uids       map[string]string
}

func newTokens(dir control.StateDir) (*tokens, error) {
	key, err := nodetoken.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make the key for node tokens: %w", err)
	}
	pem, err := key.PublicPEM()
	if err != nil {
		return nil, fmt.Errorf("make the key for node tokens: %w", err)
	}
	t := &tokens{key: key, publicFile: filepath.Join(dir.Keys(), "token-public.pem"), uids: map[string]string{}}
	return t, writeAtomic(t.publicFile, pem, 0o600)
}

// write puts a fresh token for a node's ztunnel at path.
func (t *tokens) write(node, path string) error {
	if t.uids[node] == "" {
		t.uids[node] = newUID()
	}
	token, err := nodetoken.Mint(t.key, nodetoken.Claims{
		Namespace: ztunnelNamespace, ServiceAccount: ztunnelAccount,
		PodName: "ztunnel-" + node, PodUID: t.uids[node], Node: node,
		Audience: []string{tokenAudience},
	}, tokenTTL)
	if err != nil {
		return fmt.Errorf("mint the token of %s: %w", node, err)
	}
	return writeAtomic(path, []byte(token), 0o600)
}

// writePod puts a fresh token for a pod's own service account at path.
func (t *tokens) writePod(p *plan.Pod, path string) error {
	token, err := nodetoken.Mint(t.key, nodetoken.Claims{
		Namespace: p.Namespace, ServiceAccount: p.ServiceAccount,
		PodName: p.Name, PodUID: p.UID, Node: p.Node,
		Audience: []string{tokenAudience},
	}, tokenTTL)
	if err != nil {
		return fmt.Errorf("mint the token of pod %v: %w", p.PodKey, err)
	}
	return writeAtomic(path, []byte(token), 0o600)
}

func (s *Supervisor) renewTokens(ctx context.Context) {
	tick := time.NewTicker(tokenRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range s.nodes {
			if err := s.tokens.write(n.Name, s.dir.Node(n.Name, "token")); err != nil {
				s.log.Error("cannot renew a node's token; its ztunnel will be refused when the old one expires", zap.String("node", n.Name), zap.Error(err))
			}
		}
		s.mu.Lock()
		var waypoints []*plan.Pod
		for _, p := range s.pods {
			if planned := p.current(); isWaypoint(planned) {
				waypoints = append(waypoints, planned)
			}
		}
		s.mu.Unlock()
		for _, p := range waypoints {
			if err := s.tokens.writePod(p, s.podToken(p)); err != nil {
				s.log.Error("cannot renew a waypoint's token; it will be refused when the old one expires", zap.Stringer("pod", p.PodKey), zap.Error(err))
			}
		}
	}
}

// newUID is a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeAtomic replaces path by a rename, so that readers see the old or the new
// content and nothing between.
func writeAtomic(path string, data []byte, mode os.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}
