package plan

import (
	"fmt"
	"net/netip"
)

// The addresses live in namespaces of their own and meet no others; they are
// those of common cluster defaults, so that they look familiar.
var (
	lan4     = netip.MustParsePrefix("172.30.0.0/24")
	lan6     = netip.MustParsePrefix("fd00:172:30::/64")
	service4 = netip.MustParsePrefix("10.96.0.0/16")
	service6 = netip.MustParsePrefix("fd00:10:96::/112")
)

// ControlPlane4 and ControlPlane6 are where istiod-lite listens.
var (
	ControlPlane4 = lan4.Addr().Next()
	ControlPlane6 = lan6.Addr().Next()
)

// Node is one node of the local mesh.
type Node struct {
	// Index counts from 1; Name is "node-<Index>".
	Index int
	Name  string
	// Lan4 and Lan6 are its addresses on the link between the nodes, with the
	// length of that link's prefix.
	Lan4, Lan6 netip.Prefix
	// Pods4 and Pods6 are the ranges of its pods.
	Pods4, Pods6 netip.Prefix
	// Gateway4 and Gateway6 are the node's addresses toward its pods.
	Gateway4, Gateway6 netip.Addr
}

// ControlPlanePrefixes are the control plane's addresses with the length of the
// link's prefix.
func ControlPlanePrefixes() (v4, v6 netip.Prefix) {
	return netip.PrefixFrom(ControlPlane4, lan4.Bits()), netip.PrefixFrom(ControlPlane6, lan6.Bits())
}

// Nodes returns the first n nodes. It panics when n is not in 1..MaxNodes;
// callers check what users type.
func Nodes(n int) []Node {
	if n < 1 || n > MaxNodes {
		panic(fmt.Sprintf("plan: %d nodes", n))
	}
	nodes := make([]Node, n)
	for i := range nodes {
		index := i + 1
		node := Node{Index: index, Name: fmt.Sprintf("node-%d", index)}
		node.Lan4 = netip.PrefixFrom(nth(lan4.Addr(), 10+index), lan4.Bits())
		node.Lan6 = netip.PrefixFrom(nth(lan6.Addr(), 10+index), lan6.Bits())
		node.Pods4 = netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", index))
		node.Pods6 = netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", index))
		node.Gateway4 = node.Pods4.Addr().Next()
		node.Gateway6 = node.Pods6.Addr().Next()
		nodes[i] = node
	}
	return nodes
}

// nth is the address n after a; n is below 65536.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	sum := int(b[len(b)-1]) | int(b[len(b)-2])<<8
	sum += n
	b[len(b)-1], b[len(b)-2] = byte(sum), byte(sum>>8)
	out, _ := netip.AddrFromSlice(b)
	return out
}

// pool hands out offsets 0..size-1. It goes round, so that an address that was
// just given back rests before somebody else gets it: connections to its former
// owner must not reach a stranger.
type pool struct {
	size, next int
	used       map[int]bool
}

func newPool(size, next int) *pool { return &pool{size: size, next: next, used: map[int]bool{}} }

func (p *pool) take() (int, bool) {
	for range p.size {
		n := p.next
		p.next = (p.next + 1) % p.size
		if !p.used[n] {
			p.used[n] = true
			return n, true
		}
	}
	return 0, false
}
