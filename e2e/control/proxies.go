package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

// proxies are the xDS clients of all nodes.
type proxies struct {
	clients []*xdsclient.Client
	tokens  []string // files
	roots   string   // file
	began   time.Time
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// serverName is what istiod-lite's certificate is for.
const serverName = "istiod." + systemNamespace + ".svc"

// startProxies makes the pods of the node proxies and a client for each with its
// token. Root certificates are in the file roots.
func startProxies(ctx context.Context, m *mesh, t *tracker, dir, roots, address string) (*proxies, error) {
	p := &proxies{roots: roots, clients: make([]*xdsclient.Client, m.opts.nodes), tokens: make([]string, m.opts.nodes)}
	err := each(ctx, m.opts.nodes, func(ctx context.Context, i int) error {
		object, err := m.proxy(ctx, i)
		if err != nil {
			return err
		}
		token, err := m.api.Token(ctx, object, time.Hour)
		if err != nil {
			return err
		}
		p.tokens[i] = filepath.Join(dir, fmt.Sprintf("token-%d", i))
		if err := os.WriteFile(p.tokens[i], []byte(token), 0o600); err != nil {
			return err
		}
		p.clients[i], err = newProxy(i, object.Name, nodeName(i), t, xdsclient.DialConfig{
			Address: address, TokenFile: p.tokens[i], ClusterID: "Kubernetes",
			TLS: func() (*tls.Config, error) {
				return mtls.ControlPlaneClient(mtls.RootsFromFile(roots), serverName), nil
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, p.cancel = context.WithCancel(ctx)
	p.began = time.Now()
	for _, c := range p.clients {
		p.wg.Go(func() { c.Run(ctx) })
	}
	return p, nil
}

func newProxy(i int, pod, node string, t *tracker, dial xdsclient.DialConfig) (*xdsclient.Client, error) {
	id, err := xdsclient.NewNode(xdsclient.Identity{Name: pod, Namespace: systemNamespace, Node: node})
	if err != nil {
		return nil, err
	}
	return xdsclient.New(xdsclient.Config{
		Dial: xdsclient.Dialer(dial), Node: id, Logger: zap.NewNop(),
		Handlers: map[string]xdsclient.Handler{
			xdsclient.AddressType:       xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection { return observe(i, t, d) }),
			xdsclient.AuthorizationType: xdsclient.HandlerFunc(func(xdsclient.Delta) []xdsclient.Rejection { return nil }),
		},
	})
}

// observe decodes what a proxy is sent, as ztunnel does, and tells the tracker.
// The acknowledgement leaves when it returns.
func observe(proxy int, t *tracker, d xdsclient.Delta) []xdsclient.Rejection {
	var rejections []xdsclient.Rejection
	var seen []string
	for _, r := range d.Resources {
		var a apiworkload.Address
		if err := proto.Unmarshal(r.Body.GetValue(), &a); err != nil {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: err})
		}
		if w := a.GetWorkload(); w != nil && w.GetStatus() == apiworkload.WorkloadStatus_HEALTHY && len(w.GetServices()) > 0 {
			seen = append(seen, r.Name)
		}
	}
	if d.First {
		return rejections
	}
	now := time.Now()
	for _, uid := range seen {
		t.saw(proxy, uid, appeared, now)
	}
	for _, uid := range d.Removed {
		t.saw(proxy, uid, gone, now)
	}
	return rejections
}

// synced waits until every client has had an answer of every type since a
// moment, and returns how long that took.
func (p *proxies) synced(ctx context.Context, since time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, phaseTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		missing, last := 0, since
		for _, c := range p.clients {
			s := c.Status()
			for _, t := range s.Types {
				if !s.Connected || !t.LastResponse.After(since) || t.LastRejection != "" {
					missing++
				} else if t.LastResponse.After(last) {
					last = t.LastResponse
				}
			}
		}
		if missing == 0 {
			return last.Sub(since), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d subscriptions are not in sync: %w (the first client: %s)", missing, context.Cause(ctx), p.clients[0].Status().LastError)
		case <-ticker.C:
		}
	}
}

// resources checks that every client holds as many resources as the first, and
// returns how many.
func (p *proxies) resources() (int, error) {
	n := p.clients[0].Status().Types[xdsclient.AddressType].Resources
	for _, c := range p.clients {
		if got := c.Status().Types[xdsclient.AddressType].Resources; got != n {
			return 0, fmt.Errorf("one proxy holds %d resources, another %d", n, got)
		}
	}
	if n == 0 {
		return 0, errors.New("the proxies hold nothing")
	}
	return n, nil
}

func (p *proxies) stop() {
	p.cancel()
	p.wg.Wait()
}
