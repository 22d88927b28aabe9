package redirect

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// Every expression works on the first register; a rule's matches run one after
// the other.
const register = unix.NFT_REG_1

// Offsets and lengths in the headers of IP (RFC 791, RFC 8200), TCP (RFC 9293)
// and UDP (RFC 768), in bytes.
const (
	ip4Source, ip4Destination, ip4Length = 12, 16, 4
	ip6Source, ip6Destination, ip6Length = 8, 24, 16
	l4SourcePort, l4DestinationPort      = 0, 2
	tcpFlags                             = 13
	tcpFIN, tcpSYN, tcpRST, tcpACK       = 0x01, 0x02, 0x04, 0x10
)

func load(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func differs(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: data}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func and(mask, xor []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: xor}
}

func isTCP() []expr.Any { return []expr.Any{load(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_TCP)} }

func isUDP() []expr.Any { return []expr.Any{load(expr.MetaKeyL4PROTO), equal(unix.IPPROTO_UDP)} }

// isSYN matches the first packet of a connection's opening.
func isSYN() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		and([]byte{tcpFIN | tcpSYN | tcpRST | tcpACK}, []byte{0}),
		equal(tcpSYN),
	}
}

func l4Port(offset uint32, compare expr.Any) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}, compare,
	}
}

// markIs and markIsNot look at our bits of the packet's mark.
func markIs(mark uint32) []expr.Any {
	return []expr.Any{load(expr.MetaKeyMARK), and(native32(sockopt.MarkMask), native32(0)), equal(native32(mark)...)}
}

func markIsNot(mark uint32) []expr.Any {
	return []expr.Any{load(expr.MetaKeyMARK), and(native32(sockopt.MarkMask), native32(0)), differs(native32(mark)...)}
}

func connectionMarkIs(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: register}, and(native32(sockopt.MarkMask), native32(0)), equal(native32(mark)...),
	}
}

// setConnectionMark replaces our bits of the connection's mark.
func setConnectionMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: register},
		and(native32(^uint32(sockopt.MarkMask)), native32(mark)),
		&expr.Ct{Key: expr.CtKeyMARK, Register: register, SourceRegister: true},
	}
}

// restoreMark copies the connection's mark to the packet.
func restoreMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: register},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true},
	}
}

func setZone(zone uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: binary.NativeEndian.AppendUint16(nil, zone)},
		&expr.Ct{Key: expr.CtKeyZONE, Register: register, SourceRegister: true},
	}
}

func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{load(key), equal(padded...)}
}

func interfaceIsNot(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{load(key), differs(padded...)}
}

// source and destination match one address of its family.
func source(a netip.Addr) []expr.Any { return address(a, ip4Source, ip6Source, equal) }

func destination(a netip.Addr) []expr.Any { return address(a, ip4Destination, ip6Destination, equal) }

func destinationIsNot(a netip.Addr) []expr.Any {
	return address(a, ip4Destination, ip6Destination, differs)
}

func address(a netip.Addr, offset4, offset6 uint32, compare func(...byte) expr.Any) []expr.Any {
	family, offset, length := byte(unix.NFPROTO_IPV4), offset4, uint32(ip4Length)
	if a.Is6() {
		family, offset, length = unix.NFPROTO_IPV6, offset6, ip6Length
	}
	return []expr.Any{
		load(expr.MetaKeyNFPROTO), equal(family),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		compare(a.AsSlice()...),
	}
}

func redirectTo(p uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: port(p)},
		&expr.Redir{RegisterProtoMin: register, RegisterProtoMax: register, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func giveBack() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
