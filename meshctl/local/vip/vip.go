package vip

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

const tableName = "tulle-services"

// Forward sends connections to one virtual address and port to Backends, each
// with the same chance. Without backends the address stays unreachable.
type Forward struct {
	VIP      netip.AddrPort
	UDP      bool
	Backends []netip.AddrPort
}

// Config is what one node shall do.
type Config struct {
	Forwards []Forward
	// Gateway4 and Gateway6 are the node's own addresses. A pod that reaches
	// itself through a service sees them as the source: it would answer itself
	// past the node otherwise.
	Gateway4, Gateway6 netip.Addr
}

// Apply makes the rules of the node whose namespace is ns. It is idempotent.
func Apply(ns *netns.NS, cfg Config) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		return fmt.Errorf("service rules: open netlink socket: %w", err)
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(table) // so that there is one to delete
	c.DelTable(table)
	c.AddTable(table)

	services := c.AddChain(&nftables.Chain{Name: "services", Table: table})
	hairpin := c.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, base := range []*nftables.Chain{
		{Name: "prerouting", Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest},
		{Name: "output", Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest},
	} {
		base.Table, base.Type = table, nftables.ChainTypeNAT
		c.AddRule(&nftables.Rule{Table: table, Chain: c.AddChain(base),
			Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: services.Name}}})
	}
	seen := map[netip.Addr]bool{}
	for _, f := range cfg.Forwards {
		for i, backend := range f.Backends {
			c.AddRule(&nftables.Rule{Table: table, Chain: services, Exprs: forward(f, backend, len(f.Backends)-i)})
			if ip := backend.Addr(); !seen[ip] {
				seen[ip] = true
				gateway := cfg.Gateway4
				if ip.Is6() {
					gateway = cfg.Gateway6
				}
				c.AddRule(&nftables.Rule{Table: table, Chain: hairpin, Exprs: loop(ip, gateway)})
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("service rules: %w (does the kernel have nf_tables and nft_nat?)", err)
	}
	return nil
}

// forward takes one connection in left to backend. Rules are tried in order, so
// with the odds 1/3, 1/2, 1/1 each of three backends gets a third.
func forward(f Forward, backend netip.AddrPort, left int) []expr.Any {
	proto := byte(unix.IPPROTO_TCP)
	if f.UDP {
		proto = unix.IPPROTO_UDP
	}
	exprs := append(family(f.VIP.Addr()), address(f.VIP.Addr(), true)...)
	exprs = append(exprs,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: port(f.VIP.Port())},
	)
	if left > 1 {
		exprs = append(exprs,
			&expr.Numgen{Register: 1, Modulus: uint32(left), Type: unix.NFT_NG_RANDOM},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)})
	}
	return append(exprs,
		&expr.Immediate{Register: 1, Data: backend.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: port(backend.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto(backend.Addr()), RegAddrMin: 1, RegProtoMin: 2, Specified: true})
}

// loop matches what ip sends to itself.
func loop(ip, gateway netip.Addr) []expr.Any {
	exprs := append(family(ip), address(ip, false)...)
	exprs = append(exprs, address(ip, true)...)
	return append(exprs,
		&expr.Immediate{Register: 1, Data: gateway.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: nfproto(ip), RegAddrMin: 1})
}

func family(ip netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(nfproto(ip))}},
	}
}

// address matches the destination, or the source, of a packet of ip's family.
func address(ip netip.Addr, destination bool) []expr.Any {
	offset, length := uint32(12), uint32(4) // RFC 791: source 12, destination 16
	if ip.Is6() {
		offset, length = 8, 16 // RFC 8200: source 8, destination 24
	}
	if destination {
		offset += length
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip.AsSlice()},
	}
}

func nfproto(ip netip.Addr) uint32 {
	if ip.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
