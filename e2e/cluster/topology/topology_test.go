package topology_test

import (
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

func TestAddressesOfNodesAreDisjoint(t *testing.T) {
	shape := topology.Topology{Nodes: topology.MaxNodes, DualStack: true}
	lan := netip.PrefixFrom(topology.ControlPlaneIP, topology.LANBits).Masked()
	lan6 := netip.PrefixFrom(topology.ControlPlaneIP6, topology.LANBits6).Masked()
	var ranges []netip.Prefix
	seen := map[netip.Addr]string{topology.ControlPlaneIP: "control plane", topology.ControlPlaneIP6: "control plane"}
	for _, n := range shape.All() {
		for _, ip := range []netip.Addr{n.IP, n.IP6} {
			if other, ok := seen[ip]; ok {
				t.Errorf("%s and %s share %s", n.Name, other, ip)
			}
			seen[ip] = n.Name
		}
		if !lan.Contains(n.IP) || !lan6.Contains(n.IP6) {
			t.Errorf("%s is not on the LAN: %s %s", n.Name, n.IP, n.IP6)
		}
		if !topology.ClusterCIDR.Contains(n.PodCIDR.Addr()) || !topology.ClusterCIDR6.Contains(n.PodCIDR6.Addr()) {
			t.Errorf("pods of %s are not the cluster's: %s %s", n.Name, n.PodCIDR, n.PodCIDR6)
		}
		for _, r := range ranges {
			if r.Overlaps(n.PodCIDR) || r.Overlaps(n.PodCIDR6) {
				t.Errorf("pods of %s share %s with others", n.Name, r)
			}
		}
		ranges = append(ranges, n.PodCIDR, n.PodCIDR6)
	}
	for _, ip := range []netip.Addr{topology.APIServiceIP, topology.DNSServiceIP} {
		if !topology.ServiceCIDR.Contains(ip) {
			t.Errorf("%s is no address of services", ip)
		}
	}
}

func TestShapesAreChecked(t *testing.T) {
	for nodes, ok := range map[int]bool{-1: false, 0: false, 1: true, topology.MaxNodes: true, topology.MaxNodes + 1: false} {
		if err := (topology.Topology{Nodes: nodes}).Validate(); (err == nil) != ok {
			t.Errorf("%d nodes: %v", nodes, err)
		}
	}
	if _, err := (topology.Topology{Nodes: 2}).Node("n3"); err == nil {
		t.Error("a node that does not exist was found")
	}
}

func TestIPv4AloneNamesNoIPv6(t *testing.T) {
	shape := topology.Topology{Nodes: 1}
	n := shape.All()[0]
	for _, text := range append(shape.PodCIDRs(n), shape.NodeIPs(n), shape.ServiceCIDRs(), shape.ClusterCIDRs()) {
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
			continue
		}
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			t.Errorf("%q", text)
		}
	}
}
