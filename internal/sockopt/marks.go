package sockopt

// Marks on packets and connections, shared with Istio's agent and proxy. Only
// the bits of MarkMask are ours; the others belong to whoever else marks
// packets on the node.
const (
	// MarkProxy is the packet mark of what the proxy itself sends. The rules of a
	// pod let it pass where they would capture the application's packets.
	MarkProxy = 0x539
	// MarkInbound is the connection mark of inbound connections that the proxy
	// opened towards the application with the source address of the real client;
	// the answers are brought back to the proxy's socket by it.
	MarkInbound = 0x111
	// MarkMask covers the bits used by the two marks.
	MarkMask = 0xfff
)
