package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

const (
	lanBridge = "lan"
	// podLink and nodeLink are what pods and nodes call their own link.
	podLink  = "eth0"
	nodeLink = "eth0"
)

// gatewayLinkLocal is the node's IPv6 address on every pod's link; the pods'
// default route points there.
var gatewayLinkLocal = netip.MustParsePrefix("fe80::1/64")

// Lan is the link between the nodes.
type Lan struct{ ns *netns.NS }

// Node is a node's namespace.
type Node struct {
	NS *netns.NS
	// routes to it from other nodes need these:
	lan4, lan6   netip.Addr
	pods4, pods6 netip.Prefix
}

// Pod is a pod's namespace.
type Pod struct{ NS *netns.NS }

// NewLan makes the link in ns, and gives the namespace itself addresses on it.
// It borrows ns.
func NewLan(ns *netns.NS, v4, v6 netip.Prefix) (*Lan, error) {
	err := configure(ns, func(h *netlink.Handle) error {
		if err := up(h, "lo"); err != nil {
			return err
		}
		no := false
		bridge := &netlink.Bridge{LinkAttrs: attrs(lanBridge), MulticastSnooping: &no}
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge %s: %w", lanBridge, err)
		}
		return up(h, lanBridge, v4, v6)
	}, common...)
	if err != nil {
		return nil, fmt.Errorf("link between the nodes: %w", err)
	}
	return &Lan{ns: ns}, nil
}

// NodeConfig is where a node stands.
type NodeConfig struct {
	Name               string
	Lan4, Lan6         netip.Prefix
	Pods4, Pods6       netip.Prefix
	Gateway4, Gateway6 netip.Addr
}

// AddNode makes a node's namespace and joins it to the lan. The caller closes
// the node's NS.
func (l *Lan) AddNode(cfg NodeConfig) (*Node, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", cfg.Name, err)
	}
	err = configure(ns, func(h *netlink.Handle) error {
		if err := addAddress(h, "lo", netip.PrefixFrom(cfg.Gateway4, 32)); err != nil {
			return err
		}
		return addAddress(h, "lo", netip.PrefixFrom(cfg.Gateway6, 128))
	}, append(common, forwarding...)...)
	if err == nil {
		err = l.plug(ns, cfg.Name, nodeLink, cfg.Lan4, cfg.Lan6)
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("node %s: %w", cfg.Name, err)
	}
	return &Node{NS: ns, lan4: cfg.Lan4.Addr(), lan6: cfg.Lan6.Addr(), pods4: cfg.Pods4, pods6: cfg.Pods6}, nil
}

// plug gives a namespace a link into the bridge; outer is its name there.
func (l *Lan) plug(ns *netns.NS, outer, inner string, v4, v6 netip.Prefix) error {
	err := configure(l.ns, func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(lanBridge)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", lanBridge, err)
		}
		veth := &netlink.Veth{LinkAttrs: attrs(outer), PeerName: inner, PeerNamespace: netlink.NsFd(ns.FD())}
		veth.MasterIndex = bridge.Attrs().Index
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth %s: %w", outer, err)
		}
		return up(h, outer)
	})
	if err != nil {
		return err
	}
	return configure(ns, func(h *netlink.Handle) error { return up(h, inner, v4, v6) })
}

// Connect gives every node routes to the pods of the others.
func (l *Lan) Connect(nodes []*Node) error {
	for _, from := range nodes {
		err := configure(from.NS, func(h *netlink.Handle) error {
			for _, to := range nodes {
				if to == from {
					continue
				}
				if err := addRoute(h, nodeLink, to.pods4, to.lan4); err != nil {
					return err
				}
				if err := addRoute(h, nodeLink, to.pods6, to.lan6); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("routes between the nodes: %w", err)
		}
	}
	// The control plane's namespace reaches pods too, for probes by hand.
	return configure(l.ns, func(h *netlink.Handle) error {
		for _, to := range nodes {
			if err := addRoute(h, lanBridge, to.pods4, to.lan4); err != nil {
				return err
			}
			if err := addRoute(h, lanBridge, to.pods6, to.lan6); err != nil {
				return err
			}
		}
		return nil
	})
}

// PodConfig is where a pod stands. Link is the name of its link in the node.
type PodConfig struct {
	Name, Link         string
	IPv4, IPv6         netip.Addr
	Gateway4, Gateway6 netip.Addr
}

// AddPod makes a pod's namespace and routes to it from the node. The caller
// closes the pod's NS; the link goes with the namespace.
func (n *Node) AddPod(cfg PodConfig) (*Pod, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", cfg.Name, err)
	}
	if err := n.wire(ns, cfg); err != nil {
		ns.Close()
		return nil, fmt.Errorf("pod %s: %w", cfg.Name, err)
	}
	return &Pod{NS: ns}, nil
}

func (n *Node) wire(ns *netns.NS, cfg PodConfig) error {
	if err := apply(ns, append(common, podSettings...)...); err != nil {
		return err
	}
	err := configure(n.NS, func(h *netlink.Handle) error {
		veth := &netlink.Veth{LinkAttrs: attrs(cfg.Link), PeerName: podLink, PeerNamespace: netlink.NsFd(ns.FD())}
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth %s: %w", cfg.Link, err)
		}
		if err := up(h, cfg.Link, gatewayLinkLocal); err != nil {
			return err
		}
		if err := addRoute(h, cfg.Link, netip.PrefixFrom(cfg.IPv4, 32), netip.Addr{}); err != nil {
			return err
		}
		return addRoute(h, cfg.Link, netip.PrefixFrom(cfg.IPv6, 128), netip.Addr{})
	})
	if err != nil {
		return err
	}
	return configure(ns, func(h *netlink.Handle) error {
		if err := up(h, podLink, netip.PrefixFrom(cfg.IPv4, 32), netip.PrefixFrom(cfg.IPv6, 128)); err != nil {
			return err
		}
		if err := addRoute(h, podLink, netip.PrefixFrom(cfg.Gateway4, 32), netip.Addr{}); err != nil {
			return err
		}
		if err := addRoute(h, podLink, netip.PrefixFrom(netip.IPv4Unspecified(), 0), cfg.Gateway4); err != nil {
			return err
		}
		return addRoute(h, podLink, netip.PrefixFrom(netip.IPv6Unspecified(), 0), gatewayLinkLocal.Addr())
	})
}

// configure applies settings inside ns and runs f with a netlink handle there.
func configure(ns *netns.NS, f func(*netlink.Handle) error, settings ...setting) error {
	if err := apply(ns, settings...); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	return f(h)
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// up gives a link addresses and switches it on.
func up(h *netlink.Handle, name string, addresses ...netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	for _, a := range addresses {
		if err := addAddress(h, name, a); err != nil {
			return err
		}
	}
	return nil
}

func addAddress(h *netlink.Handle, name string, prefix netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %v to %s: %w", prefix, name, err)
	}
	return nil
}

// addRoute routes to over a link, through via unless that is invalid.
func addRoute(h *netlink.Handle, name string, to netip.Prefix, via netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to)}
	if via.IsValid() {
		route.Gw = net.IP(via.AsSlice())
	} else if to.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.RouteReplace(route); err != nil {
		return fmt.Errorf("add route to %v over %s: %w", to, name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
