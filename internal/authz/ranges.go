package authz

import (
	"net/netip"
	"slices"
)

// Ranges is an immutable set of addresses, made for asking often. The zero value
// is empty. It is safe for concurrent use.
type Ranges struct {
	// sorted do not overlap. netip orders IPv4 before IPv6, so the families never
	// mix within a range.
	sorted []ipRange
}

// ipRange is a closed range of addresses of one family.
type ipRange struct{ first, last netip.Addr }

// NewRanges returns the set of the addresses of all prefixes.
func NewRanges(prefixes []netip.Prefix) Ranges {
	out := make([]ipRange, 0, len(prefixes))
	for _, p := range prefixes {
		out = append(out, ipRange{p.Masked().Addr(), lastAddr(p)})
	}
	slices.SortFunc(out, func(a, b ipRange) int {
		if c := a.first.Compare(b.first); c != 0 {
			return c
		}
		return b.last.Compare(a.last)
	})
	n := 0
	for i, r := range out {
		// Prefixes nest or are disjoint: after sorting, a range that starts
		// inside its predecessor ends inside it as well.
		if i > 0 && !out[n-1].last.Less(r.first) {
			continue
		}
		out[n] = r
		n++
	}
	return Ranges{out[:n]}
}

// Contains reports whether a is in the set; a mapped IPv4 address is not the IPv4
// address that it maps.
func (r Ranges) Contains(a netip.Addr) bool {
	lo, hi := 0, len(r.sorted)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.sorted[mid].last.Less(a) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(r.sorted) && !a.Less(r.sorted[lo].first)
}

// Strings returns the ranges as "first-last", or the address of a range of one.
func (r Ranges) Strings() []string {
	out := make([]string, 0, len(r.sorted))
	for _, x := range r.sorted {
		if x.first == x.last {
			out = append(out, x.first.String())
		} else {
			out = append(out, x.first.String()+"-"+x.last.String())
		}
	}
	return out
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
