package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/certs/caclient"
	"github.com/tulle-mesh/tulle/internal/mtls"
)

// certify has proxies ask for their pods' certificates as fast as they are
// answered, each with a new key.
func certify(ctx context.Context, p *proxies, live []pod, address string, d time.Duration) error {
	identities := make(map[int][]spiffeid.ID)
	for _, pod := range live {
		id, err := spiffeid.FromSegments(spiffeid.RequireTrustDomainFromString("cluster.local"), "ns", pod.namespace, "sa", serviceName(pod.service))
		if err != nil {
			return err
		}
		identities[pod.node] = append(identities[pod.node], id)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.Now().Add(d)
	var wg sync.WaitGroup
	for node := range min(signers, len(p.tokens)) {
		conn, err := caclient.Dial(address, mtls.ControlPlaneClient(mtls.RootsFromFile(p.roots), serverName))
		if err != nil {
			return err
		}
		defer conn.Close()
		signer := caclient.New(conn, caclient.Config{Token: caclient.TokenFile{Path: p.tokens[node]}})
		ids := identities[node]
		if len(ids) == 0 {
			return fmt.Errorf("no pods on node %d", node)
		}
		wg.Go(func() {
			for i := 0; time.Now().Before(deadline) && ctx.Err() == nil; i++ {
				if _, _, err := signer.Sign(ctx, ids[i%len(ids)]); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
