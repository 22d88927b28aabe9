package redirect

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/internal/sockopt"
)

// loosePath says whether connection tracking takes up TCP connections in their
// middle (1, the kernel's default) or leaves them untracked (0). See doc.go.
const loosePath = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose"

// migratePath says whether connections that wait in a listener's queue move to
// another listener of the same port when it closes (1) or are reset (0, the
// kernel's default). While a node's proxy is replaced, two listen in each pod.
const migratePath = "/proc/sys/net/ipv4/tcp_migrate_req"

// disabledPath holds 1 where loopback, and so everything, has no IPv6.
const disabledPath = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"

// inside runs f in ns with a netlink socket of there and the families that
// exist there.
func inside(ns *netns.NS, f func(h *netlink.Handle, families []int) error) error {
	return ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open route socket: %w", err)
		}
		defer h.Close()
		families := []int{unix.AF_INET}
		if b, err := os.ReadFile(disabledPath); err == nil && strings.TrimSpace(string(b)) == "0" {
			families = append(families, unix.AF_INET6)
		}
		return f(h, families)
	})
}

func applyRouting(ns *netns.NS) error {
	return inside(ns, func(h *netlink.Handle, families []int) error {
		if err := writeLoose(false); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		writeMigrate(true)
		for _, family := range families {
			lo, err := h.LinkByName("lo")
			if err != nil {
				return fmt.Errorf("find lo: %w", err)
			}
			ok, err := hasRoute(h, family, lo)
			if err != nil {
				return err
			}
			if !ok {
				if err := h.RouteReplace(localRoute(family, lo)); err != nil {
					return fmt.Errorf("add local %s route in table %d (is lo up?): %w", familyName(family), routeTable, err)
				}
			}
			found, err := ourRules(h, family)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				if err := h.RuleAdd(markRule(family)); err != nil {
					return fmt.Errorf("add %s rule for mark %#x: %w", familyName(family), sockopt.MarkInbound, err)
				}
			}
		}
		return nil
	})
}

func diffRouting(ns *netns.NS) ([]string, error) {
	var diffs []string
	err := inside(ns, func(h *netlink.Handle, families []int) error {
		for _, family := range families {
			lo, err := h.LinkByName("lo")
			if err != nil {
				return fmt.Errorf("find lo: %w", err)
			}
			ok, err := hasRoute(h, family, lo)
			if err != nil {
				return err
			}
			if !ok {
				diffs = append(diffs, fmt.Sprintf("the %s route of table %d is missing", familyName(family), routeTable))
			}
			found, err := ourRules(h, family)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				diffs = append(diffs, fmt.Sprintf("the %s rule for mark %#x is missing", familyName(family), sockopt.MarkInbound))
			}
		}
		if b, err := os.ReadFile(loosePath); err == nil && strings.TrimSpace(string(b)) != "0" {
			diffs = append(diffs, loosePath+" is not 0")
		}
		return nil
	})
	return diffs, err
}

func removeRouting(ns *netns.NS) error {
	return inside(ns, func(h *netlink.Handle, families []int) error {
		writeMigrate(false)
		for _, family := range families {
			found, err := ourRules(h, family)
			if err != nil {
				return err
			}
			for i := range found {
				if err := h.RuleDel(&found[i]); err != nil && !errors.Is(err, unix.ENOENT) {
					return fmt.Errorf("delete %s rule for mark %#x: %w", familyName(family), sockopt.MarkInbound, err)
				}
			}
			lo, err := h.LinkByName("lo")
			if err != nil {
				return fmt.Errorf("find lo: %w", err)
			}
			if ok, err := hasRoute(h, family, lo); err != nil {
				return err
			} else if ok {
				if err := h.RouteDel(localRoute(family, lo)); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("delete %s route of table %d: %w", familyName(family), routeTable, err)
				}
			}
		}
		return nil
	})
}

func markRule(family int) *netlink.Rule {
	r := netlink.NewRule()
	mask := uint32(sockopt.MarkMask)
	r.Family, r.Priority, r.Mark, r.Mask, r.Table = family, rulePreference, sockopt.MarkInbound, &mask, routeTable
	return r
}

// ourRules finds the rule for the inbound mark, more than once if somebody added
// it again.
func ourRules(h *netlink.Handle, family int) ([]netlink.Rule, error) {
	rules, err := h.RuleList(family)
	if err != nil {
		return nil, fmt.Errorf("list %s rules: %w", familyName(family), err)
	}
	var found []netlink.Rule
	for _, r := range rules {
		if r.Priority == rulePreference && r.Mark == sockopt.MarkInbound && r.Mask != nil &&
			*r.Mask == sockopt.MarkMask && r.Table == routeTable {
			r.Family = family
			found = append(found, r)
		}
	}
	return found, nil
}

func localRoute(family int, lo netlink.Link) *netlink.Route {
	everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		everywhere = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		Family: family, Table: routeTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		LinkIndex: lo.Attrs().Index, Dst: everywhere,
	}
}

func hasRoute(h *netlink.Handle, family int, lo netlink.Link) (bool, error) {
	routes, err := h.RouteListFiltered(family, &netlink.Route{Table: routeTable}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("list %s routes of table %d: %w", familyName(family), routeTable, err)
	}
	for _, r := range routes {
		all := r.Dst == nil
		if !all {
			ones, _ := r.Dst.Mask.Size()
			all = ones == 0
		}
		if all && r.Type == unix.RTN_LOCAL && r.LinkIndex == lo.Attrs().Index {
			return true, nil
		}
	}
	return false, nil
}

func setLoose(ns *netns.NS, loose bool) error {
	return ns.Do(func() error { return writeLoose(loose) })
}

func writeLoose(loose bool) error {
	if err := writeSwitch(loosePath, loose); err != nil {
		return fmt.Errorf("set tracking of old connections: %w", err)
	}
	return nil
}

// writeMigrate does what it can: kernels before 5.14 do not have the setting, and
// without it a few connections are reset when a proxy is replaced.
func writeMigrate(migrate bool) { _ = writeSwitch(migratePath, migrate) }

func writeSwitch(path string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func familyName(family int) string {
	if family == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}
