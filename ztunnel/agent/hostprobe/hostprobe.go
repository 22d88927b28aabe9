package hostprobe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Config makes Probes.
type Config struct {
	// NS is the node's network namespace; nil: that of the process.
	NS *netns.NS
	// Interval is the time between two comparisons. Zero means 5 s.
	Interval time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// Probes are the node's rules for kubelet's probes. They are safe for concurrent
// use.
type Probes struct {
	cfg     Config
	log     *zap.Logger
	repairs prometheus.Counter

	// mu is held across netlink: the kernel must see the changes in our order.
	mu   sync.Mutex
	pods map[string][]netip.Addr
	// written are the addresses in the kernel's sets.
	written map[netip.Addr]bool
	// rules is how the table looks as it was written, empty when that is not known;
	// then the next comparison writes it again.
	rules string
}

// New makes Probes and writes the table, without pods. What an agent of before
// left there is replaced by the first Set or by Keep.
func New(cfg Config) (*Probes, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Interval == 0 {
		cfg.Interval = tick
	}
	p := &Probes{
		cfg: cfg, log: cfg.Logger, pods: map[string][]netip.Addr{}, written: map[netip.Addr]bool{},
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tulle_agent_probe_rule_repairs_total",
			Help: "Times that the node's rules for kubelet's probes were found changed and written again (unstable).",
		}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(p.repairs)
	}
	// The sets of before stay until the pods are known again: probes of running
	// pods must not fail because an agent restarts.
	old, err := p.found()
	if err != nil {
		return nil, err
	}
	p.pods[""] = old
	if err := p.rewrite(); err != nil {
		return nil, err
	}
	return p, nil
}

// Known says that all pods of before were Set again; what remains of the sets of
// before goes.
func (p *Probes) Known() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pods, "")
	return p.update()
}

// Set says which addresses a pod has. It returns when the rules are in force.
func (p *Probes) Set(uid string, addresses []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.pods[uid]; ok && slices.Equal(old, addresses) {
		return nil
	}
	p.pods[uid] = slices.Clone(addresses)
	return p.update()
}

// Delete forgets a pod.
func (p *Probes) Delete(uid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.pods[uid]; !ok {
		return nil
	}
	delete(p.pods, uid)
	return p.update()
}

// Run compares and repairs the rules until ctx ends. They stay when it returns.
func (p *Probes) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			p.check()
		}
	}
}

func (p *Probes) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, addresses, err := p.read()
	if err != nil {
		p.log.Warn("cannot compare the node's rules for probes", zap.Error(err))
		return
	}
	if p.rules != "" && now == p.rules && maps.Equal(addresses, p.desired()) {
		return
	}
	if p.rules != "" {
		p.repairs.Inc()
		p.log.Warn("somebody changed the node's rules for probes; they are written again")
	}
	if err := p.rewrite(); err != nil {
		p.log.Error("kubelet's probes of pods that take no plaintext may fail", zap.Error(err))
	}
}

// Remove takes the table away.
func Remove(ns *netns.NS) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	conn.AddTable(table())
	conn.DelTable(table())
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the node's rules for probes: %w", err)
	}
	return nil
}

// desired is what the sets should hold; the caller holds mu.
func (p *Probes) desired() map[netip.Addr]bool {
	want := map[netip.Addr]bool{}
	for _, addresses := range p.pods {
		for _, a := range addresses {
			want[a.Unmap()] = true
		}
	}
	return want
}

// update brings the sets to what is desired by the difference alone; the caller
// holds mu.
func (p *Probes) update() error {
	want := p.desired()
	var added, gone []netip.Addr
	for a := range want {
		if !p.written[a] {
			added = append(added, a)
		}
	}
	for a := range p.written {
		if !want[a] {
			gone = append(gone, a)
		}
	}
	if len(added)+len(gone) == 0 {
		return nil
	}
	if err := p.change(added, gone); err != nil {
		// Somebody took the table or an element away.
		return p.rewrite()
	}
	p.written = want
	return nil
}

func (p *Probes) change(added, gone []netip.Addr) error {
	conn, err := open(p.cfg.NS)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	for _, f := range families {
		set := f.kernelSet(table())
		if err := addElements(conn, set, f, added); err != nil {
			return err
		}
		for part := range slices.Chunk(f.elements(gone), chunk) {
			if err := conn.SetDeleteElements(set, part); err != nil {
				return err
			}
		}
	}
	return conn.Flush()
}

// rewrite puts the whole table in force, in one transaction; the caller holds
// mu, or nobody else knows p.
func (p *Probes) rewrite() error {
	conn, err := open(p.cfg.NS)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	want := p.desired()
	p.rules, p.written = "", map[netip.Addr]bool{}
	before, err := p.generation()
	if err != nil {
		return err
	}
	if err := write(conn, slices.Collect(maps.Keys(want))); err != nil {
		return fmt.Errorf("the node's rules for probes: %w", err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write the node's rules for probes (nftables table %s): %w", tableName, err)
	}
	p.written = want
	// How they look counts only when our change was the only one meanwhile: what
	// somebody else did to them at once must not pass for ours.
	rules, _, err := p.read()
	if err != nil {
		p.log.Debug("cannot read the node's rules for probes as they were written", zap.Error(err))
		return nil
	}
	if after, err := p.generation(); err == nil && after == next(before) {
		p.rules = rules
	}
	return nil
}

// generation is the number of the last change to the nftables rules of the node's
// namespace, by anybody.
func (p *Probes) generation() (uint32, error) {
	ns := p.cfg.NS
	if ns == nil {
		own, err := netns.Current()
		if err != nil {
			return 0, err
		}
		defer own.Close()
		ns = own
	}
	return redirect.Generation(ns)
}

// next is the generation after g; none is 0.
func next(g uint32) uint32 { return max(g+1, 1) }

// found reads the addresses that are in the kernel.
func (p *Probes) found() ([]netip.Addr, error) {
	_, addresses, err := p.read()
	return slices.Collect(maps.Keys(addresses)), err
}

// read returns a text of the table's chains and rules, empty when there is no
// table, and the addresses in its sets.
func (p *Probes) read() (string, map[netip.Addr]bool, error) {
	conn, err := open(p.cfg.NS)
	if err != nil {
		return "", nil, err
	}
	defer conn.CloseLasting()
	fail := func(err error) (string, map[netip.Addr]bool, error) {
		return "", nil, fmt.Errorf("read the node's rules for probes: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fail(err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if i < 0 {
		return "", nil, nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "table flags %d\n", tables[i].Flags)
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fail(err)
	}
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		fmt.Fprintf(&text, "chain %s", c.Name)
		if c.Hooknum != nil && c.Priority != nil && c.Policy != nil {
			fmt.Fprintf(&text, " %s %d %d %d", c.Type, *c.Hooknum, *c.Priority, *c.Policy)
		}
		rules, err := conn.GetRules(table(), c)
		if err != nil {
			return fail(err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				fmt.Fprintf(&text, "\n %T%+v", e, e)
			}
		}
		text.WriteString("\n")
	}
	addresses := map[netip.Addr]bool{}
	for _, f := range families {
		elements, err := conn.GetSetElements(f.kernelSet(table()))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				addresses[a] = true
			}
		}
	}
	return text.String(), addresses, nil
}

// open makes a netlink socket inside ns, or where we are when ns is nil.
func open(ns *netns.NS) (conn *nftables.Conn, err error) {
	dial := func() error {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	}
	if ns == nil {
		err = dial()
	} else {
		err = ns.Do(dial)
	}
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	return conn, nil
}
