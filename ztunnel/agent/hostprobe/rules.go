package hostprobe

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The addresses that probes come from: those of Istio, which ztunnel's and other
// people's rules know.
var (
	Source4 = netip.MustParseAddr("169.254.7.127")
	Source6 = netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
)

// Sources are both.
func Sources() []netip.Addr { return []netip.Addr{Source4, Source6} }

const tableName = "tulle-agent"

// register holds what an expression compares.
const register = unix.NFT_REG_1

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h): the
// connection's destination was translated, so it was not aimed at the pod.
const ctStatusDNAT = 1 << 5

// beforeOthers is the priority of the translating chain: before that of source
// translation (100), where kube-proxy and CNI plugins masquerade. The first to
// translate wins.
const beforeOthers = nftables.ChainPriority(90)

// family is what differs between IPv4 and IPv6.
type family struct {
	set                         string
	proto                       byte
	key                         nftables.SetDatatype
	source                      netip.Addr
	sourceAt, destinationAt, ln uint32
}

// Offsets and lengths of RFC 791 and RFC 8200.
var families = []family{
	{"pods-v4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, Source4, 12, 16, 4},
	{"pods-v6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, Source6, 8, 24, 16},
}

func (f family) is(a netip.Addr) bool { return a.Is4() == (f.proto == unix.NFPROTO_IPV4) }

func table() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

func (f family) kernelSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: f.set, KeyType: f.key}
}

// write queues the whole table in place of what there is.
func write(conn *nftables.Conn, addresses []netip.Addr) error {
	t := table()
	conn.AddTable(t) // so that there is one to delete
	conn.DelTable(t)
	conn.AddTable(t)
	policy := nftables.ChainPolicyAccept
	priority := beforeOthers
	translate := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: &priority, Policy: &policy,
	})
	guard := conn.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &policy,
	})
	for _, f := range families {
		set := f.kernelSet(t)
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
		if err := addElements(conn, set, f, addresses); err != nil {
			return err
		}
		conn.AddRule(&nftables.Rule{
			Table: t, Chain: translate, Exprs: f.translation(set), UserData: comment("probes of the kubelet"),
		})
		conn.AddRule(&nftables.Rule{
			Table: t, Chain: guard, Exprs: f.foreign(), UserData: comment("the probe address from outside"),
		})
	}
	return nil
}

func addElements(conn *nftables.Conn, set *nftables.Set, f family, addresses []netip.Addr) error {
	elements := f.elements(addresses)
	for part := range slices.Chunk(elements, chunk) {
		if err := conn.SetAddElements(set, part); err != nil {
			return err
		}
	}
	return nil
}

func (f family) elements(addresses []netip.Addr) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range addresses {
		if f.is(a) {
			out = append(out, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return out
}

// translation matches what package doc says and gives it the probe source.
func (f family) translation(set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{f.proto}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_TCP}},
		// Only packets that a socket of this namespace sends have a user at all.
		&expr.Meta{Key: expr.MetaKeySKUID, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: native32(kubeletUID)},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.destinationAt, Len: f.ln},
		&expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID},
		&expr.Ct{Key: expr.CtKeySTATUS, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native32(ctStatusDNAT), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: native32(0)},
		&expr.Immediate{Register: register, Data: f.source.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: register, RegAddrMax: register},
	}
}

// foreign drops what claims to be a probe and was not sent by this node, whose
// own packets do not pass prerouting.
func (f family) foreign() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{f.proto}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceAt, Len: f.ln},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: f.source.AsSlice()},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func comment(text string) []byte { return userdata.AppendString(nil, userdata.TypeComment, text) }

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
