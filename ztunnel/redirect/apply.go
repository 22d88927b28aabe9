package redirect

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// Apply puts the rules of cfg in force in ns. It changes nothing where they are
// in force already. Where rules differ, for whatever reason, they are replaced
// in one transaction without a gap. It needs CAP_NET_ADMIN in the user
// namespace that owns ns.
//
// Apply must not run concurrently with Apply or Remove on the same namespace.
func Apply(ns *netns.NS, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	// Routing first: the rules depend on it and not the other way round.
	if err := applyRouting(ns); err != nil {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	want := desired(cfg)
	have, err := list(conn)
	if err != nil {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	if len(diffTables(want, have)) > 0 {
		replace(conn, want, have)
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("redirection in %v: write nftables rules: %w", ns.ID(), err)
		}
	}
	// Once more: connection tracking may have come only with the rules.
	if err := setLoose(ns, false); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	return nil
}

// Verify tells how the rules in force differ from cfg, in words for a log; an
// empty list means not at all.
func Verify(ns *netns.NS, cfg Config) ([]string, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("redirection: %w", err)
	}
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	have, err := list(conn)
	if err != nil {
		return nil, fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	diffs := diffTables(desired(cfg), have)
	routing, err := diffRouting(ns)
	if err != nil {
		return nil, fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	return append(diffs, routing...), nil
}

// Release ends the capture of new connections in one transaction, while those
// that were captured go on: the redirecting rules go, and what carries
// established connections stays. The kernel keeps a connection's translation in
// its entry of connection tracking, and applies it as long as a chain of type nat
// is there, for which an empty one does, and connections are tracked, for which
// the expressions of the mangle rules do; those rules and the policy routing also
// lead the answers on connections with a spoofed source. It does nothing where no
// table is. Apply captures again; Remove follows when no captured connection is
// left.
func Release(ns *netns.NS, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("redirection: %w", err)
	}
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	have, err := list(conn)
	if err != nil {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	want := released(cfg)
	if len(have) == 0 || len(diffTables(want, have)) == 0 {
		return nil
	}
	replace(conn, want, have)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("redirection in %v: empty nftables rules: %w", ns.ID(), err)
	}
	return nil
}

// Remove takes away all that Apply may have made. New connections are no
// longer captured; established ones that were captured break, because the
// translation of their addresses ends. It does nothing where nothing is left.
func Remove(ns *netns.NS) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	have, err := list(conn)
	if err != nil {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	for _, t := range have {
		conn.DelTable(inet(t.name))
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("redirection in %v: remove nftables rules: %w", ns.ID(), err)
	}
	if err := removeRouting(ns); err != nil {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	if err := setLoose(ns, true); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("redirection in %v: %w", ns.ID(), err)
	}
	return nil
}

// open makes a netlink socket inside ns; used from outside, it stays there.
func open(ns *netns.NS) (*nftables.Conn, error) {
	var conn *nftables.Conn
	err := ns.Do(func() error {
		var err error
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("redirection in %v: open nftables socket: %w", ns.ID(), err)
	}
	return conn, nil
}

func inet(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// replace queues the one transaction that turns have into want.
func replace(conn *nftables.Conn, want []table, have []kernelTable) {
	for _, h := range have {
		if !slices.ContainsFunc(want, func(t table) bool { return t.name == h.name }) {
			conn.DelTable(inet(h.name))
		}
	}
	for _, w := range want {
		chains := w.flat()
		t := conn.AddTable(inet(w.name))
		if i := slices.IndexFunc(have, func(h kernelTable) bool { return h.name == w.name }); i >= 0 {
			if have[i].refillable(chains) {
				conn.FlushTable(t)
			} else {
				conn.DelTable(t)
				conn.AddTable(t)
			}
		}
		made := make([]*nftables.Chain, len(chains))
		for i, c := range chains {
			made[i] = &nftables.Chain{Name: c.name, Table: t}
			if c.base {
				policy := nftables.ChainPolicyAccept
				made[i].Type, made[i].Hooknum, made[i].Priority, made[i].Policy = c.kind, &c.hook, &c.priority, &policy
			}
			conn.AddChain(made[i])
		}
		for i, c := range chains {
			for _, r := range c.rules {
				nr := &nftables.Rule{Table: t, Chain: made[i], Exprs: r.exprs}
				if r.comment != "" {
					nr.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
				}
				conn.AddRule(nr)
			}
		}
	}
}
