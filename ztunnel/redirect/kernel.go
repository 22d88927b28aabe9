package redirect

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// kernelTable is one of our tables as found in the kernel.
type kernelTable struct {
	name    string
	dormant bool
	chains  []foundChain
}

type foundChain struct {
	kernelChain
	policy nftables.ChainPolicy
}

// refillable tells whether the table can be emptied and filled again in place.
func (t kernelTable) refillable(want []kernelChain) bool {
	if t.dormant {
		return false
	}
	for _, c := range t.chains {
		if c.policy != nftables.ChainPolicyAccept {
			return false
		}
		if !slices.ContainsFunc(want, func(w kernelChain) bool { return w.head() == c.head() }) {
			return false
		}
	}
	return true
}

// list reads our tables with all that is in them.
func list(conn *nftables.Conn) ([]kernelTable, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var out []kernelTable
	for _, t := range tables {
		switch t.Name {
		case tableNAT, tableMangle, tableRaw:
			out = append(out, kernelTable{name: t.Name, dormant: t.Flags != 0})
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, c := range chains {
		i := slices.IndexFunc(out, func(t kernelTable) bool { return t.name == c.Table.Name })
		if i < 0 {
			continue
		}
		found := foundChain{kernelChain: kernelChain{name: c.Name}, policy: nftables.ChainPolicyAccept}
		if c.Hooknum != nil && c.Priority != nil {
			found.base, found.kind, found.hook, found.priority = true, c.Type, *c.Hooknum, *c.Priority
		}
		if c.Policy != nil {
			found.policy = *c.Policy
		}
		rules, err := conn.GetRules(inet(c.Table.Name), c)
		if err != nil {
			return nil, fmt.Errorf("list nftables rules of %s %s: %w", c.Table.Name, c.Name, err)
		}
		for _, r := range rules {
			found.rules = append(found.rules, rule{exprs: r.Exprs})
		}
		out[i].chains = append(out[i].chains, found)
	}
	return out, nil
}

// diffTables says in words how have differs from want.
func diffTables(want []table, have []kernelTable) []string {
	var diffs []string
	for _, h := range have {
		if !slices.ContainsFunc(want, func(t table) bool { return t.name == h.name }) {
			diffs = append(diffs, fmt.Sprintf("table %s should not exist", h.name))
		}
	}
	for _, w := range want {
		i := slices.IndexFunc(have, func(h kernelTable) bool { return h.name == w.name })
		if i < 0 {
			diffs = append(diffs, fmt.Sprintf("table %s is missing", w.name))
			continue
		}
		diffs = append(diffs, diffTable(w, have[i])...)
	}
	return diffs
}

func diffTable(w table, h kernelTable) []string {
	var diffs []string
	if h.dormant {
		diffs = append(diffs, fmt.Sprintf("table %s is dormant", w.name))
	}
	chains := w.flat()
	for _, c := range h.chains {
		if !slices.ContainsFunc(chains, func(k kernelChain) bool { return k.name == c.name }) {
			diffs = append(diffs, fmt.Sprintf("table %s has the foreign chain %s", w.name, c.name))
		}
	}
	for _, c := range chains {
		i := slices.IndexFunc(h.chains, func(f foundChain) bool { return f.name == c.name })
		if i < 0 {
			diffs = append(diffs, fmt.Sprintf("chain %s %s is missing", w.name, c.name))
			continue
		}
		f := h.chains[i]
		if f.head() != c.head() || f.policy != nftables.ChainPolicyAccept {
			diffs = append(diffs, fmt.Sprintf("chain %s %s is of another kind: %s, policy %d", w.name, c.name, f.head(), f.policy))
		}
		if len(f.rules) != len(c.rules) {
			diffs = append(diffs, fmt.Sprintf("chain %s %s has %d rules instead of %d", w.name, c.name, len(f.rules), len(c.rules)))
			continue
		}
		for j := range c.rules {
			if text(f.rules[j].exprs) != text(c.rules[j].exprs) {
				diffs = append(diffs, fmt.Sprintf("rule %d of chain %s %s (%s) was changed", j+1, w.name, c.name, c.rules[j].comment))
			}
		}
	}
	return diffs
}

// text writes expressions for comparison, less what the library does not read
// back.
func text(exprs []expr.Any) string {
	var s string
	for _, e := range exprs {
		if ct, ok := e.(*expr.Ct); ok {
			// The source register of a ct expression is not parsed: key is all that
			// comes back. A set and a get stay apart by what stands around them.
			e = &expr.Ct{Key: ct.Key}
		}
		s += fmt.Sprintf("%T%+v;", e, e)
	}
	return s
}
