package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// common are set in every namespace before it gets links.
var common = []setting{
	// Sources are spoofed on delivery by design (ztunnel keeps the original
	// address), which reverse-path filtering would drop.
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	// Addresses are ours to give; waiting a second to detect duplicates would
	// only delay the first IPv6 packet.
	{"net/ipv6/conf/all/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/all/disable_ipv6", "0"},
	{"net/ipv6/conf/default/disable_ipv6", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
}

// forwarding is for nodes.
var forwarding = []setting{
	{"net/ipv4/ip_forward", "1"},
	{"net/ipv6/conf/all/forwarding", "1"},
	{"net/ipv6/conf/default/forwarding", "1"},
	{"net/ipv4/conf/all/send_redirects", "0"},
	{"net/ipv4/conf/default/send_redirects", "0"},
}

// pod settings are those that container runtimes give pods too: ports below
// 1024 and ping need no privilege.
var podSettings = []setting{
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 0"},
}

type setting struct{ name, value string }

// apply writes settings inside ns. A missing file is passed over: the kernel
// was built without what it would switch.
func apply(ns *netns.NS, settings ...setting) error {
	return ns.Do(func() error {
		for _, s := range settings {
			err := os.WriteFile(filepath.Join("/proc/sys", s.name), []byte(s.value), 0o644)
			if err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("set %s=%s: %w", strings.ReplaceAll(s.name, "/", "."), s.value, err)
			}
		}
		return nil
	})
}
