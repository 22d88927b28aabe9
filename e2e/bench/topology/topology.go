package topology

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// MTU of every link: Ethernet's, as between most nodes.
const MTU = 1500

// Addresses of the namespaces. A pod reaches everything through its node.
var (
	ClientAddr  = netip.MustParseAddr("10.77.1.2")
	ClientNode  = netip.MustParseAddr("10.77.1.1") // node A as its pod sees it
	NodeAAddr   = netip.MustParseAddr("10.77.0.1")
	NodeBAddr   = netip.MustParseAddr("10.77.0.2")
	ServerAddr  = netip.MustParseAddr("10.77.2.2")
	serverNode  = netip.MustParseAddr("10.77.2.1")
	ControlAddr = netip.MustParseAddr("10.77.3.2")
	controlNode = netip.MustParseAddr("10.77.3.1")
	// WaypointAddr is where what stands between client and server for itself runs.
	WaypointAddr = netip.MustParseAddr("10.77.4.2")
	waypointNode = netip.MustParseAddr("10.77.4.1")
)

// Names of the nodes.
const (
	NodeA = "tb-node-a"
	NodeB = "tb-node-b"
)

// Topology is one set of namespaces. It is torn down by Close.
type Topology struct {
	Client, NodeA, NodeB, Server, Control, Waypoint *Namespace

	dir string
	all []*Namespace
}

// New builds the namespaces and their links. dir takes their mounts.
func New(dir string) (*Topology, error) {
	t := &Topology{dir: dir}
	if err := t.build(); err != nil {
		t.Close()
		return nil, fmt.Errorf("build topology: %w", err)
	}
	return t, nil
}

func (t *Topology) build() error {
	for _, n := range []struct {
		name string
		ns   **Namespace
	}{
		{"tb-client", &t.Client}, {NodeA, &t.NodeA}, {NodeB, &t.NodeB}, {"tb-server", &t.Server}, {"tb-control", &t.Control},
		{"tb-waypoint", &t.Waypoint},
	} {
		ns, err := newNamespace(t.dir, n.name)
		if err != nil {
			return err
		}
		*n.ns = ns
		t.all = append(t.all, ns)
	}
	for _, l := range []struct {
		a, b         *Namespace
		aDev, bDev   string
		aAddr, bAddr netip.Addr
	}{
		{t.Client, t.NodeA, "eth0", "client", ClientAddr, ClientNode},
		{t.NodeA, t.NodeB, "link", "link", NodeAAddr, NodeBAddr},
		{t.Server, t.NodeB, "eth0", "server", ServerAddr, serverNode},
		{t.Control, t.NodeA, "eth0", "control", ControlAddr, controlNode},
		{t.Waypoint, t.NodeB, "eth0", "waypoint", WaypointAddr, waypointNode},
	} {
		if err := connect(l.a, l.b, l.aDev, l.bDev, l.aAddr, l.bAddr); err != nil {
			return fmt.Errorf("link %s with %s: %w", l.a.Name, l.b.Name, err)
		}
	}
	for _, r := range []struct {
		ns       *Namespace
		dst, via string
	}{
		{t.Client, "0.0.0.0/0", ClientNode.String()},
		{t.Server, "0.0.0.0/0", serverNode.String()},
		{t.Control, "0.0.0.0/0", controlNode.String()},
		{t.Waypoint, "0.0.0.0/0", waypointNode.String()},
		{t.NodeA, "10.77.2.0/24", NodeBAddr.String()},
		{t.NodeA, "10.77.4.0/24", NodeBAddr.String()},
		{t.NodeB, "10.77.1.0/24", NodeAAddr.String()},
		{t.NodeB, "10.77.3.0/24", NodeAAddr.String()},
	} {
		if err := r.ns.route(r.dst, r.via); err != nil {
			return fmt.Errorf("route of %s to %s: %w", r.ns.Name, r.dst, err)
		}
	}
	return nil
}

// Close removes the namespaces. Processes in them must have ended.
func (t *Topology) Close() error {
	var errs []error
	for _, ns := range t.all {
		errs = append(errs, ns.close())
	}
	return errors.Join(errs...)
}

// Namespace is one network namespace with a path in the file system.
type Namespace struct {
	Name string
	// Path is where the namespace is mounted.
	Path string
	ns   *netns.NS
}

// sysctls of every namespace: nodes forward, and a thousand short connections
// a second do not run out of ports.
var sysctls = map[string]string{
	"net/ipv4/ip_forward":          "1",
	"net/ipv4/ip_local_port_range": "1024 65535",
	"net/ipv4/tcp_tw_reuse":        "1",
	"net/ipv4/conf/all/rp_filter":  "0",
}

func newNamespace(dir, name string) (*Namespace, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	n := &Namespace{Name: name, Path: filepath.Join(dir, name), ns: ns}
	if err := os.WriteFile(n.Path, nil, 0o600); err != nil {
		ns.Close()
		return nil, err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.FD()), n.Path, "", unix.MS_BIND, ""); err != nil {
		ns.Close()
		return nil, fmt.Errorf("mount namespace %s: %w", name, err)
	}
	return n, ns.Do(func() error {
		for key, value := range sysctls {
			if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
		}
		return nil
	})
}

func (n *Namespace) close() error {
	err := unix.Unmount(n.Path, unix.MNT_DETACH)
	if err != nil {
		err = fmt.Errorf("unmount namespace %s: %w", n.Name, err)
	}
	return errors.Join(err, n.ns.Close(), os.Remove(n.Path))
}

// Start starts cmd inside the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	if err := n.ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s in %s: %w", strings.Join(cmd.Args, " "), n.Name, err)
	}
	return nil
}

// Do runs f on a thread inside the namespace.
func (n *Namespace) Do(f func() error) error { return n.ns.Do(f) }

func connect(a, b *Namespace, aDev, bDev string, aAddr, bAddr netip.Addr) error {
	err := a.ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: aDev, MTU: MTU},
			PeerName:      bDev,
			PeerNamespace: netlink.NsFd(b.ns.FD()),
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(a.address(aDev, aAddr), b.address(bDev, bAddr))
}

func (n *Namespace) address(dev string, addr netip.Addr) error {
	return n.ns.Do(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}})
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

func (n *Namespace) route(dst, via string) error {
	_, prefix, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	return n.ns.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: prefix, Gw: net.ParseIP(via)})
	})
}
