package mesh

import (
	"context"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/explain"
)

// ExplainOutbound asks a ztunnel where a connection of a pod would go: to dest, or
// to port of service when dest is not valid.
func (c *Component) ExplainOutbound(ctx context.Context, client explain.Name, dest netip.AddrPort, service workload.ServiceKey, port uint16) (explain.OutboundAnswer, error) {
	q := url.Values{"client": {client.String()}}
	if dest.IsValid() {
		q.Set("dest", dest.String())
	} else {
		q.Set("service", service.String())
		q.Set("port", strconv.Itoa(int(port)))
	}
	return page[explain.OutboundAnswer](ctx, c, "/explain/outbound?"+q.Encode())
}

// ExplainInbound asks a ztunnel whether a connection would reach a pod of its
// node; an empty identity is a client that comes in plaintext.
func (c *Component) ExplainInbound(ctx context.Context, server explain.Name, dest netip.AddrPort, source netip.Addr, identity string) (explain.InboundAnswer, error) {
	q := url.Values{"server": {server.String()}, "dest": {dest.String()}, "source": {source.String()}}
	if identity != "" {
		q.Set("identity", identity)
	}
	return page[explain.InboundAnswer](ctx, c, "/explain/inbound?"+q.Encode())
}
