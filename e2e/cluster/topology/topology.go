// Package topology holds the names and addresses of the cluster: pure values,
// the same for every run, so that tests and people can rely on them.
//
// The control plane lives in a network namespace of its own, with the bridge
// that is the LAN of the nodes. Each node has one address on the LAN and one
// range of addresses for its pods; nodes reach each other's pods by static
// routes, without an overlay, so that a capture on the bridge sees what pods
// send just as they sent it.
package topology

import (
	"fmt"
	"net/netip"
	"strings"
)

// MaxNodes is what the addresses have room for; a machine's memory ends earlier.
const MaxNodes = 9

// Names on the host. All start with one prefix, by which a teardown finds them.
const (
	// Prefix begins the names of the network namespaces.
	Prefix = "kp-"
	// ControlPlaneNetns is the network namespace of the control plane.
	ControlPlaneNetns = Prefix + "cp"
	// Bridge is the LAN's bridge, in the control plane's namespace.
	Bridge = "br0"
	// Cgroup is made in every hierarchy; the nodes' cgroups are below it.
	Cgroup = "kp"
	// ClusterDomain is the domain of the cluster's DNS.
	ClusterDomain = "cluster.local"
	// APIPort is the API server's port on the LAN.
	APIPort = 6443
)

// Topology is the shape of a cluster. The zero value has no nodes.
type Topology struct {
	// Nodes counts the nodes, 1 to MaxNodes.
	Nodes int `json:"nodes"`
	// DualStack gives nodes, pods and services IPv6 addresses besides the IPv4 ones.
	DualStack bool `json:"dualStack"`
}

// Validate tells what is wrong with the shape.
func (t Topology) Validate() error {
	if t.Nodes < 1 || t.Nodes > MaxNodes {
		return fmt.Errorf("--nodes %d: a cluster has 1 to %d nodes", t.Nodes, MaxNodes)
	}
	return nil
}

// Node is one node's names and addresses.
type Node struct {
	// Index counts from 1.
	Index int
	// Name is the node's name in Kubernetes and its host name.
	Name string
	// Netns is the name of its network namespace, Link that of its end of the
	// cable in the control plane's namespace (the other end is the node's eth0).
	Netns, Link string
	// IP and PodCIDR are of IPv4, IP6 and PodCIDR6 of IPv6.
	IP, IP6           netip.Addr
	PodCIDR, PodCIDR6 netip.Prefix
	// Zone is the node's failure zone; the first node has one to itself.
	Zone string
	// ControlPlane marks the node that bears the control plane's role label. It
	// takes pods like the others.
	ControlPlane bool
}

// All returns the nodes in order.
func (t Topology) All() []Node {
	nodes := make([]Node, t.Nodes)
	for i := range nodes {
		nodes[i] = node(i + 1)
	}
	return nodes
}

// Node finds a node by its name.
func (t Topology) Node(name string) (Node, error) {
	names := make([]string, 0, t.Nodes)
	for _, n := range t.All() {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Node{}, fmt.Errorf("no node %q; the nodes are %s", name, strings.Join(names, ", "))
}

func node(i int) Node {
	zone := "zone-a"
	if i > 1 {
		zone = "zone-b"
	}
	return Node{
		Index: i, Name: fmt.Sprintf("n%d", i), Netns: fmt.Sprintf("%sn%d", Prefix, i), Link: fmt.Sprintf("kpv%d", i),
		IP:       netip.AddrFrom4([4]byte{172, 30, 0, byte(10 + i)}),
		IP6:      netip.MustParseAddr(fmt.Sprintf("fd00:30::1%d", i)),
		PodCIDR:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
		PodCIDR6: netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", i)),
		Zone:     zone, ControlPlane: i == 1,
	}
}

// Region is every node's region.
const Region = "local"

// The control plane's addresses on the LAN, and the LAN itself.
var (
	ControlPlaneIP  = netip.MustParseAddr("172.30.0.1")
	ControlPlaneIP6 = netip.MustParseAddr("fd00:30::1")
)

// Prefix lengths of the LAN.
const (
	LANBits  = 24
	LANBits6 = 64
)

// Ranges of services and pods, and the two service addresses that are known beforehand.
var (
	ServiceCIDR  = netip.MustParsePrefix("10.96.0.0/16")
	ServiceCIDR6 = netip.MustParsePrefix("fd00:96::/112")
	ClusterCIDR  = netip.MustParsePrefix("10.244.0.0/16")
	ClusterCIDR6 = netip.MustParsePrefix("fd00:244::/32")
	APIServiceIP = netip.MustParseAddr("10.96.0.1")
	DNSServiceIP = netip.MustParseAddr("10.96.0.10")
)

// ServiceCIDRs is the flag of the API server.
func (t Topology) ServiceCIDRs() string { return t.join(ServiceCIDR, ServiceCIDR6) }

// ClusterCIDRs is the setting of kube-proxy.
func (t Topology) ClusterCIDRs() string { return t.join(ClusterCIDR, ClusterCIDR6) }

// PodCIDRs returns the node's ranges, as its object has them.
func (t Topology) PodCIDRs(n Node) []string {
	if t.DualStack {
		return []string{n.PodCIDR.String(), n.PodCIDR6.String()}
	}
	return []string{n.PodCIDR.String()}
}

// NodeIPs is the flag of the kubelet.
func (t Topology) NodeIPs(n Node) string {
	if t.DualStack {
		return n.IP.String() + "," + n.IP6.String()
	}
	return n.IP.String()
}

func (t Topology) join(four, six netip.Prefix) string {
	if t.DualStack {
		return four.String() + "," + six.String()
	}
	return four.String()
}
