package redirect

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tulle-mesh/tulle/internal/sockopt"
)

const (
	tableNAT    = "istio-ambient-nat"
	tableMangle = "istio-ambient-mangle"
	tableRaw    = "istio-ambient-raw"

	chainPrerouting = "istio-prerouting"
	chainOutput     = "istio-output"
)

// rule is one rule and what it is for; the text travels into the kernel as the
// rule's comment.
type rule struct {
	comment string
	exprs   []expr.Any
}

// chain is a base chain that hands all packets to a chain of the same purpose,
// as in Istio's rules, where tools look for the second one.
type chain struct {
	base     string
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

type table struct {
	name   string
	chains []chain
}

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

// desired is the whole of the rules. Tables without a rule are left out.
func desired(cfg Config) []table {
	var natPre, natOut, manglePre, mangleOut, rawPre, rawOut []rule
	add := func(chain *[]rule, comment string, matches ...[]expr.Any) {
		*chain = append(*chain, rule{comment: comment, exprs: slices.Concat(matches...)})
	}

	for _, name := range cfg.VirtualInterfaces {
		in := interfaceIs(expr.MetaKeyIIFNAME, name)
		add(&natPre, "from a virtual machine", in, isTCP(), isSYN(), redirectTo(portOutbound))
		add(&natPre, "nothing else for it", in, giveBack())
	}
	if !cfg.OutboundOnly {
		add(&manglePre, "remember connections that the proxy opened",
			markIs(sockopt.MarkProxy), setConnectionMark(sockopt.MarkInbound))
	}
	for _, a := range cfg.ProbeSources {
		if !cfg.OutboundOnly {
			add(&natPre, "probes", source(a), isTCP(), accept())
		}
		add(&natOut, "answers to probes", destination(a), isTCP(), accept())
	}
	if !cfg.OutboundOnly {
		for _, a := range []netip.Addr{loopback4, loopback6} {
			add(&natPre, "inbound", destinationIsNot(a), isTCP(), isSYN(),
				l4Port(l4DestinationPort, differs(port(portHBONE)...)),
				markIsNot(sockopt.MarkProxy), redirectTo(portInbound))
		}
	}
	add(&mangleOut, "answers on connections that the proxy opened",
		connectionMarkIs(sockopt.MarkInbound), restoreMark())
	if cfg.DNS {
		add(&natOut, "DNS over UDP", interfaceIsNot(expr.MetaKeyOIFNAME, "lo"), isUDP(),
			l4Port(l4DestinationPort, equal(port(53)...)), markIsNot(sockopt.MarkProxy), redirectTo(portDNS))
		for _, a := range []netip.Addr{loopback4, loopback6} {
			add(&natOut, "DNS over TCP", destinationIsNot(a), isTCP(), isSYN(),
				l4Port(l4DestinationPort, equal(port(53)...)), markIsNot(sockopt.MarkProxy), redirectTo(portDNS))
		}
		add(&rawOut, "the proxy's queries apart", isUDP(),
			l4Port(l4DestinationPort, equal(port(53)...)), markIs(sockopt.MarkProxy), setZone(dnsZone))
		add(&rawPre, "the answers to them", isUDP(),
			l4Port(l4SourcePort, equal(port(53)...)), markIsNot(sockopt.MarkProxy), setZone(dnsZone))
	}
	add(&natOut, "answers on connections that the proxy opened", isTCP(), markIs(sockopt.MarkInbound), accept())
	for _, a := range []netip.Addr{loopback4, loopback6} {
		add(&natOut, "the pod to itself", interfaceIs(expr.MetaKeyOIFNAME, "lo"), destinationIsNot(a), accept())
	}
	for _, a := range []netip.Addr{loopback4, loopback6} {
		add(&natOut, "outbound", destinationIsNot(a), isTCP(), isSYN(),
			markIsNot(sockopt.MarkProxy), redirectTo(portOutbound))
	}

	all := []table{
		{tableNAT, []chain{
			{"prerouting", chainPrerouting, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, natPre},
			{"output", chainOutput, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, natOut},
		}},
		{tableMangle, []chain{
			{"prerouting", chainPrerouting, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, manglePre},
			// Type route: a changed mark makes the kernel look for the route again.
			{"output", chainOutput, nftables.ChainTypeRoute, nftables.ChainHookOutput, nftables.ChainPriorityMangle, mangleOut},
		}},
		{tableRaw, []chain{
			{"prerouting", chainPrerouting, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, rawPre},
			{"output", chainOutput, nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw, rawOut},
		}},
	}
	for i := range all {
		all[i].chains = slices.DeleteFunc(all[i].chains, func(c chain) bool { return len(c.rules) == 0 })
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.chains) == 0 })
}

// released is desired without what redirects. The chains of type nat stay, though
// empty: without one, the kernel would stop translating established connections.
func released(cfg Config) []table {
	all := desired(cfg)
	for i := range all {
		if all[i].name != tableNAT {
			continue
		}
		for j := range all[i].chains {
			all[i].chains[j].rules = nil
		}
	}
	return all
}

// flat turns the chains into those of the kernel: each with its list of rules.
func (t table) flat() []kernelChain {
	var out []kernelChain
	for _, c := range t.chains {
		out = append(out, kernelChain{name: c.name, rules: c.rules})
		out = append(out, kernelChain{
			name: c.base, base: true, kind: c.kind, hook: *c.hook, priority: *c.priority,
			rules: []rule{{comment: "", exprs: jump(c.name)}},
		})
	}
	return out
}

// kernelChain is a chain as the kernel holds it.
type kernelChain struct {
	name     string
	base     bool
	kind     nftables.ChainType
	hook     nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// head is what cannot be changed in place.
func (c kernelChain) head() string {
	if !c.base {
		return "chain " + c.name
	}
	return fmt.Sprintf("chain %s type %s hook %d priority %d", c.name, c.kind, c.hook, c.priority)
}
