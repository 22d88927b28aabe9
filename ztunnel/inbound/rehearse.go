package inbound

import (
	"context"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
)

// Rehearse says what the proxy would decide on a connection from source to the
// application at target: nil lets it pass, a Refusal or *authz.Denial does not. A
// zero identity is a client that comes in plaintext. It runs the decision of real
// connections and touches neither the application nor the log; it may wait for
// the control plane to announce the pod.
func (p *Proxy) Rehearse(ctx context.Context, source netip.Addr, identity spiffeid.ID, target netip.AddrPort) error {
	r := request{
		protocol: conntrack.HBONE, source: netip.AddrPortFrom(source, 0), identity: identity,
		target: target, received: time.Now(), rehearsal: true,
	}
	if identity.IsZero() {
		r.protocol = conntrack.TCP
	}
	_, _, err := p.decide(ctx, r)
	return err
}
