package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
	"github.com/tulle-mesh/tulle/internal/netns"
)

// netnsDir is where `ip netns` looks for namespaces, and so do nsenter's users.
const netnsDir = "/run/netns"

// makeNetns makes a named network namespace and opens it.
func makeNetns(name string) (*netns.NS, error) {
	made := make(chan error, 1)
	go func() {
		// Never unlocked: the thread stays in the new namespace and ends with the goroutine.
		runtime.LockOSThread()
		h, err := vnetns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return openNetns(name)
}

func openNetns(name string) (*netns.NS, error) { return netns.Open(filepath.Join(netnsDir, name)) }

func removeNetns(name string) error {
	if err := vnetns.DeleteNamed(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// ourNetns lists the cluster's network namespaces that exist, whoever made them.
func ourNetns() ([]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), topology.Prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// makeLAN makes the control plane's namespace and the nodes' LAN in it.
func makeLAN(t topology.Topology) error {
	ns, err := makeNetns(topology.ControlPlaneNetns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		if err := forwarding(t.DualStack); err != nil {
			return err
		}
		if err := linkUp("lo"); err != nil {
			return err
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: topology.Bridge}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("make %s: %w", topology.Bridge, err)
		}
		if err := addAddress(bridge, topology.ControlPlaneIP, topology.LANBits); err != nil {
			return err
		}
		if t.DualStack {
			if err := addAddress(bridge, topology.ControlPlaneIP6, topology.LANBits6); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(bridge)
	})
}

// makeNodeNetwork makes a node's namespace and connects it to the LAN. What is
// left of an earlier one is removed first: a node that restarts has forgotten its
// links, routes and packet filter.
func makeNodeNetwork(t topology.Topology, n topology.Node) error {
	lan, err := openNetns(topology.ControlPlaneNetns)
	if err != nil {
		return err
	}
	defer lan.Close()
	if err := removeNodeNetwork(lan, n); err != nil {
		return err
	}
	ns, err := makeNetns(n.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := lan.Do(func() error { return plugIn(t, n, ns) }); err != nil {
		return fmt.Errorf("connect %s to the LAN: %w", n.Name, err)
	}
	if err := ns.Do(func() error { return setUpNode(t, n) }); err != nil {
		return fmt.Errorf("network of %s: %w", n.Name, err)
	}
	return nil
}

// removeNodeNetwork cuts the cable from the LAN's end: other mount namespaces may
// hold the node's namespace, and with it the other end, for longer.
func removeNodeNetwork(lan *netns.NS, n topology.Node) error {
	err := lan.Do(func() error {
		link, err := netlink.LinkByName(n.Link)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", n.Link, err)
	}
	return removeNetns(n.Netns)
}

// plugIn makes the cable between the LAN, in which it runs, and the node.
func plugIn(t topology.Topology, n topology.Node, ns *netns.NS) error {
	var err error
	inNode := func(fd int) error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: n.Link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd),
		})
	}
	f, err := os.Open(filepath.Join(netnsDir, n.Netns))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := inNode(int(f.Fd())); err != nil {
		return fmt.Errorf("make %s: %w", n.Link, err)
	}
	link, err := netlink.LinkByName(n.Link)
	if err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(topology.Bridge)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if err := route(bridge, n.PodCIDR, n.IP); err != nil {
		return err
	}
	if t.DualStack {
		return route(bridge, n.PodCIDR6, n.IP6)
	}
	return nil
}

// setUpNode gives the node, in whose namespace it runs, its addresses and routes.
func setUpNode(t topology.Topology, n topology.Node) error {
	if err := forwarding(t.DualStack); err != nil {
		return err
	}
	if err := linkUp("lo"); err != nil {
		return err
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := addAddress(eth0, n.IP, topology.LANBits); err != nil {
		return err
	}
	if t.DualStack {
		if err := addAddress(eth0, n.IP6, topology.LANBits6); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return err
	}
	if err := route(eth0, netip.MustParsePrefix("0.0.0.0/0"), topology.ControlPlaneIP); err != nil {
		return err
	}
	if t.DualStack {
		if err := route(eth0, netip.MustParsePrefix("::/0"), topology.ControlPlaneIP6); err != nil {
			return err
		}
	}
	for _, other := range t.All() {
		if other.Index == n.Index {
			continue
		}
		if err := route(eth0, other.PodCIDR, other.IP); err != nil {
			return err
		}
		if t.DualStack {
			if err := route(eth0, other.PodCIDR6, other.IP6); err != nil {
				return err
			}
		}
	}
	return nil
}

// plugged sets whether the node's cable is in the LAN's bridge. Nothing tells the
// node when it is not: its packets vanish, as beyond a broken switch.
func plugged(n topology.Node, in bool) error {
	lan, err := openNetns(topology.ControlPlaneNetns)
	if err != nil {
		return err
	}
	defer lan.Close()
	return lan.Do(func() error {
		link, err := netlink.LinkByName(n.Link)
		if err != nil {
			return fmt.Errorf("%s: %w", n.Link, err)
		}
		if !in {
			return netlink.LinkSetNoMaster(link)
		}
		bridge, err := netlink.LinkByName(topology.Bridge)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
}

func addAddress(link netlink.Link, ip netip.Addr, bits int) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, ip.BitLen())}}
	if ip.Is6() {
		// The LAN has no duplicates, and looking for them takes a second.
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("address %s: %w", ip, err)
	}
	return nil
}

func route(link netlink.Link, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: via.AsSlice()}
	if to.Bits() > 0 {
		r.Dst = &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	}
	// A restarted node's route is still there.
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %s via %s: %w", to, via, err)
	}
	return nil
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func forwarding(dualStack bool) error {
	settings := []string{"/proc/sys/net/ipv4/ip_forward"}
	if dualStack {
		settings = append(settings, "/proc/sys/net/ipv6/conf/all/forwarding")
	}
	for _, s := range settings {
		if err := os.WriteFile(s, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
