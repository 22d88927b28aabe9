package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/explain"
)

// textWidth is what prose is wrapped to.
const textWidth = 80

func newExplain(s *streams) *cobra.Command {
	var namespace string
	var request explain.HTTP
	output := outputFlag("table")
	cmd := &cobra.Command{
		Use:   "explain CLIENT SERVICE[:PORT]",
		Short: "Say what would become of a connection, and why",
		Long: `Says where a connection of the pod CLIENT would go and whether it would pass: each
hop, the identities, the next-hop decision, every policy that counts at the
destination with the one that decides, and which configuration the node proxies
have acknowledged. The ztunnels and the waypoint on the way themselves decide, on their
live state; no connection is made. At a waypoint a request is judged: --method,
--path and -H say which (GET / if nothing is said).

CLIENT is POD, NAMESPACE/POD or deploy/NAME. The server is a service by any of its
names, POD:PORT, or IP:PORT.

Exit status: 0 it would be allowed, 1 refused (perhaps at some endpoints only), 2
nobody can tell.`,
		Example: `  meshctl explain shop/client web
  meshctl explain deploy/api web:80 -n shop
  meshctl explain client web -n shop --method POST --path /order -H x-team:blue
  meshctl explain shop/client 10.244.1.7:5432 -o json`,
		Annotations: map[string]string{verdict: "1"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return misused(cmd, "say who connects to what: meshctl explain CLIENT SERVICE[:PORT]")
			}
			return nil
		},
	}
	t := newTarget(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := cmp.Or(notEmpty(cmd, "method", "path", "authority"), namespaceFlag(cmd, namespace), request.Check()); err != nil {
			return misused(cmd, "%w", err)
		}
		m, err := t.open(cmd.Context())
		if err != nil {
			return exitWith(2, "%w", err)
		}
		e, err := explain.Explain(cmd.Context(), m, explain.Request{Client: args[0], Server: args[1], Namespace: namespace, HTTP: request})
		if err != nil {
			return exitWith(2, "%w", err)
		}
		p := explanation{w: s.out, paint: paint(s.outFile), wide: output.wide()}
		if err := output.print(s.out, e, func() { p.print(e) }); err != nil {
			return exitWith(2, "%w", err)
		}
		switch e.Outcome {
		case explain.Allowed:
			return nil
		case explain.Refused:
			return exitError(1)
		}
		return exitError(2)
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of CLIENT and SERVICE, where they do not say")
	requestFlags(cmd, &request)
	cmd.Flags().VarP(&output, "output", "o", outputUsage)
	_ = cmd.RegisterFlagCompletionFunc("namespace", t.completeNamespaces)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return t.completePods(cmd, namespace, typed), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return t.completeServices(cmd, namespace, typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// completeServices lists services by name, or as NAME.NAMESPACE of others.
func (t *targetFlags) completeServices(cmd *cobra.Command, namespace, typed string) []string {
	ctx, cancel, m := t.quiet(cmd)
	if m == nil {
		return nil
	}
	defer cancel()
	list, err := m.Services(ctx, "")
	if err != nil {
		return nil
	}
	if namespace == "" {
		namespace = m.Namespace()
	}
	seen := map[string]bool{}
	for _, s := range list {
		if s.Namespace == namespace || m.Local() {
			seen[s.Name] = true
		} else {
			seen[s.Name+"."+s.Namespace] = true
		}
	}
	return startingWith(seen, typed)
}

// explanation writes an Explanation as text.
type explanation struct {
	w     io.Writer
	paint func(colour, text string) string
	wide  bool
	// told are the ways whose story was told in full.
	told map[string]bool
}

// story is what two ways have in common when they differ in their addresses only.
func story(w *explain.Way) string {
	kind := fmt.Sprint(w.Outcome, w.Hop.Kind, w.Hop.SameNode, w.ServerIdentity, w.AuthorizedBy == "", w.Policy)
	for _, v := range w.Policies {
		kind += fmt.Sprint(v)
	}
	if len(w.Policies) == 0 {
		kind += w.Reason
	}
	if w.Waypoint != nil {
		kind += w.Waypoint.Gateway
	}
	return kind
}

var outcomes = map[explain.Outcome]struct{ mark, colour, word string }{
	explain.Allowed:  {"√", green, "allowed"},
	explain.Refused:  {"×", red, "refused"},
	explain.Unknown:  {"‼", yellow, "cannot tell"},
	explain.NotTaken: {"-", "2", "not taken"},
}

func (p *explanation) print(e *explain.Explanation) {
	o := outcomes[e.Outcome]
	server := e.Server.Asked
	if e.Server.Service != "" {
		_, host, _ := strings.Cut(e.Server.Service, "/")
		server = fmt.Sprintf("%s:%d", host, e.Server.Port)
	}
	fmt.Fprintf(p.w, "%s/%s → %s\n", e.Client.Namespace, e.Client.Pod, server)
	p.block(p.paint(o.colour, o.mark+" "+o.word)+": ", len([]rune(o.mark+o.word))+3, e.Summary)
	fmt.Fprintln(p.w)

	client := fmt.Sprintf("%s on %s", strings.Join(e.Client.IPs, ", "), e.Client.Node)
	if e.Client.Member {
		p.field("client", client+", in the mesh as "+e.Client.Identity)
	} else {
		p.field("client", client+", not in the mesh: "+e.Client.Outside)
	}
	switch {
	case e.Server.Service != "":
		text := "service " + e.Server.Service
		if len(e.Server.Addresses) > 0 {
			text += ", " + strings.Join(e.Server.Addresses, ", ")
		} else {
			text += ", headless"
		}
		ports := make([]string, 0, len(e.Server.Ports))
		for _, n := range e.Server.Ports {
			ports = append(ports, fmt.Sprint(n))
		}
		if len(ports) > 0 {
			text += ", port " + strings.Join(ports, ", ")
		}
		switch {
		case len(e.Server.Shares) > 0:
			var all []string
			for _, w := range e.Server.Shares {
				all = append(all, fmt.Sprintf("%s (%.0f%%)", w.Waypoint, w.Share*100))
			}
			text += ", waypoints " + strings.Join(all, ", ")
		case e.Server.Waypoint != "":
			text += ", waypoint " + e.Server.Waypoint
		}
		p.field("server", text)
	default:
		p.field("server", e.Server.Dest.String())
	}
	for i := range e.Ways {
		p.way(&e.Ways[i], e)
	}
	p.proxies(e.Proxies)
	if len(e.Advice) > 0 {
		fmt.Fprintln(p.w)
	}
	for _, a := range e.Advice {
		p.block("hint: ", 6, a)
	}
}

// field is a line with a name in its first column.
func (p *explanation) field(name, text string) {
	p.block(fmt.Sprintf("%-10s", name), 10, text)
}

// block writes text behind a prefix of that many columns, wrapped below itself.
func (p *explanation) block(prefix string, columns int, text string) {
	lines := wrap(text, max(textWidth-columns, 20))
	if p.wide {
		lines = []string{text}
	}
	for i, line := range lines {
		if i > 0 {
			prefix = strings.Repeat(" ", columns)
		}
		fmt.Fprintln(p.w, prefix+line)
	}
}

func (p *explanation) way(w *explain.Way, e *explain.Explanation) {
	o := outcomes[w.Outcome]
	to := w.Hop.Dest.String()
	if h := w.Hop.Workload; h != nil {
		to = fmt.Sprintf("%s/%s", h.Namespace, h.Name)
		if h.Node != "" {
			to += " on " + h.Node
		}
		if w.Hop.Upstream.IsValid() {
			to += ", " + w.Hop.Upstream.String()
		}
	}
	share := ""
	if len(e.Ways) > 1 {
		share = fmt.Sprintf(", %.0f%% of connections", w.Share*100)
	}
	if w.Outcome == explain.NotTaken {
		share = ""
	}
	if key := story(w); !p.wide {
		if p.told[key] && w.Outcome != explain.NotTaken {
			p.block(p.paint(o.colour, o.mark+" "+o.word)+": ", len([]rune(o.mark+o.word))+3, "to "+to+share+": the same")
			return
		}
		if p.told == nil {
			p.told = map[string]bool{}
		}
		p.told[key] = true
	}
	fmt.Fprintln(p.w)
	p.block(p.paint(o.colour, o.mark+" "+o.word)+": ", len([]rune(o.mark+o.word))+3, "to "+to+share)
	if w.Outcome == explain.NotTaken {
		p.indented("because", w.Reason)
		return
	}
	by := ""
	if w.DecidedBy != "" {
		by = w.DecidedBy + ": "
	}
	p.indented("next hop", by+w.Decision)
	switch {
	case w.AuthorizedBy == "":
	case w.ServerIdentity != "":
		p.indented("identities", "client "+e.Client.Identity)
		p.indented("", "server "+w.ServerIdentity)
	default:
		p.indented("identities", "none: the server sees "+strings.Join(e.Client.IPs, ", ")+" without an identity")
	}
	switch {
	case w.AuthorizedBy != "" && len(w.Policies) == 0:
		p.indented("policies", w.AuthorizedBy+": none apply to the server: every client is let in")
	case w.AuthorizedBy != "":
		for i, v := range w.Policies {
			name := ""
			if i == 0 {
				name = "policies"
			}
			what := "does not match: "
			if v.Matched {
				what = ""
			}
			if v.DryRun {
				what = "dry run, " + what
			}
			text := fmt.Sprintf("%s %s %s%s", strings.ToUpper(v.Action), v.Policy, what, v.Reason)
			if v.Decides && (v.Matched || w.Outcome == explain.Refused) {
				text = p.mark(text, v.Matched)
			}
			p.indented(name, text)
		}
	}
	if w.Waypoint != nil {
		p.waypoint(w.Waypoint)
	}
	if w.Outcome != explain.Allowed && len(w.Policies) == 0 || w.Outcome == explain.Refused && w.Policy == "" {
		p.indented("because", w.Reason)
	}
}

// mark tells the policy that decides, or that came nearest, from the others.
func (p *explanation) mark(text string, matched bool) string {
	if matched {
		return text + " ← decides"
	}
	return text + " ← nearest"
}

func (p *explanation) indented(name, text string) {
	p.block(fmt.Sprintf("  %-11s", name), 13, text)
}

// proxies tells of configuration versions: serials of the istiod that serves.
func (p *explanation) proxies(all []explain.Proxy) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(p.w)
	for i, x := range all {
		name := ""
		if i == 0 {
			name = "config"
		}
		text := x.Node + ": "
		var types []string
		for t, s := range x.Types {
			one := fmt.Sprintf("%s %s", t, orNone(s.Acked))
			if s.Sent != s.Acked {
				one += " of " + s.Sent
			}
			if !s.AckedAt.IsZero() {
				one += " acknowledged " + words(time.Since(s.AckedAt)) + " ago"
			}
			types = append(types, one)
		}
		slices.Sort(types)
		if x.InSync {
			text += "in sync with " + x.Istiod
		} else {
			text += p.paint(yellow, "not in sync") + ": " + x.Problem
		}
		if len(types) > 0 {
			text += "; " + strings.Join(types, ", ")
		}
		p.field(name, text)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
