package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

func newZtunnel(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ztunnel",
		Aliases: []string{"zc", "ztunnel-config"},
		Short:   "See what the node proxies know and do",
		Long: `Asks the ztunnel of every node, of --node, or of the node of a pod, what it
holds. What all of them know is shown once; where they differ, the lines below the
table say so.`,
		Args: noSuchCommand,
		RunE: help,
	}
	t := newTarget(s, cmd)
	cmd.AddCommand(newWorkloads(s, t), newServices(s, t), newPolicies(s, t), newConnections(s, t), newZtunnelCertificates(s, t), newZtunnelLog(s, t))
	return cmd
}

// proxyFlags choose ztunnels.
type proxyFlags struct {
	target    *targetFlags
	node      string
	namespace string
}

// add adds --node, and -n where listings have a namespace.
func (f *proxyFlags) add(cmd *cobra.Command, namespaced string) {
	cmd.Flags().StringVar(&f.node, "node", "", "ask the ztunnel of this node only")
	_ = cmd.RegisterFlagCompletionFunc("node", f.target.completeNodes)
	if namespaced != "" {
		cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", namespaced)
		_ = cmd.RegisterFlagCompletionFunc("namespace", f.target.completeNamespaces)
	}
	cmd.ValidArgsFunction = f.completePod
}

// selection is what a command line chose.
type selection struct {
	mesh    mesh.Mesh
	proxies []*mesh.Component
	// pod is set when a pod was named that is not a ztunnel itself.
	pod *mesh.Pod
}

// choose finds the ztunnels that are meant: all, one node's, or that which a pod's
// name, or its own, leads to.
func (f *proxyFlags) choose(ctx context.Context, args []string) (*selection, error) {
	m, err := f.target.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := m.Components(ctx, mesh.Ztunnel)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, f.target.absent(m, mesh.Ztunnel)
	}
	sel := &selection{mesh: m, proxies: all}
	node := f.node
	if len(args) == 1 {
		// A ztunnel by its own name; in a local mesh they are all called alike.
		if i := slices.IndexFunc(all, func(c *mesh.Component) bool { return c.Name == args[0] && !m.Local() }); i >= 0 {
			sel.proxies = all[i : i+1]
			return sel, nil
		}
		pod, err := mesh.Find(ctx, m, f.namespace, args[0])
		if err != nil {
			return nil, err
		}
		if pod.Node == "" {
			return nil, fmt.Errorf("pod %s/%s is on no node yet: %s", pod.Namespace, pod.Name, pod.Reason)
		}
		if node != "" && node != pod.Node {
			return nil, fmt.Errorf("pod %s/%s is on node %s, not on --node %s", pod.Namespace, pod.Name, pod.Node, node)
		}
		sel.pod, node = &pod, pod.Node
	}
	if node != "" {
		sel.proxies = slices.DeleteFunc(slices.Clone(all), func(c *mesh.Component) bool { return c.Node != node })
		if len(sel.proxies) == 0 {
			return nil, fmt.Errorf("no ztunnel on node %q; there is one on %s", node, strings.Join(nodesOf(all), ", "))
		}
	}
	return sel, nil
}

func nodesOf(all []*mesh.Component) []string {
	var out []string
	for _, c := range all {
		out = append(out, c.Node)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// answer is one ztunnel's dump.
type answer struct {
	from *mesh.Component
	dump *mesh.Dump
}

// dumps asks the chosen ztunnels. Those that do not answer are in the error; what
// the others said is still worth showing.
func (sel *selection) dumps(ctx context.Context) ([]answer, error) {
	dumps, errs := mesh.Each(ctx, sel.proxies, func(ctx context.Context, c *mesh.Component) (*mesh.Dump, error) { return c.Dump(ctx) })
	var out []answer
	for i, d := range dumps {
		if errs[i] == nil {
			out = append(out, answer{sel.proxies[i], d})
			continue
		}
		if why := sel.proxies[i].Reason; why != "" {
			errs[i] = fmt.Errorf("%w (%s)", errs[i], why)
		}
	}
	return out, errors.Join(errs...)
}

// known is one thing that several ztunnels know.
type known[T any] struct {
	value T
	nodes []string
}

// MarshalJSON writes the value's own fields and, beside them, the nodes whose
// ztunnels know it.
func (k known[T]) MarshalJSON() ([]byte, error) {
	body, err := json.Marshal(k.value)
	if err != nil {
		return nil, err
	}
	nodes, err := json.Marshal(k.nodes)
	if err != nil {
		return nil, err
	}
	if len(body) > 2 {
		return append(append(append(body[:len(body)-1], `,"ztunnels":`...), nodes...), '}'), nil
	}
	return append(append([]byte(`{"ztunnels":`), nodes...), '}'), nil
}

// merge lists what the ztunnels know, each thing once.
func merge[T any](answers []answer, list func(*mesh.Dump) []T, name func(T) string) []known[T] {
	var out []known[T]
	at := map[string]int{}
	for _, a := range answers {
		for _, v := range list(a.dump) {
			body, _ := json.Marshal(v)
			key := string(body)
			i, ok := at[key]
			if !ok {
				i = len(out)
				at[key] = i
				out = append(out, known[T]{value: v})
			}
			out[i].nodes = append(out[i].nodes, a.from.Node)
		}
	}
	slices.SortStableFunc(out, func(a, b known[T]) int { return strings.Compare(name(a.value), name(b.value)) })
	if out == nil {
		out = []known[T]{}
	}
	return out
}

// differences says which ztunnels lack something that others have.
func differences[T any](answers []answer, all []known[T], noun string) []string {
	var lines []string
	for _, a := range answers {
		missing := 0
		for _, k := range all {
			if !slices.Contains(k.nodes, a.from.Node) {
				missing++
			}
		}
		if missing > 0 {
			lines = append(lines, fmt.Sprintf("the ztunnel of %s does not have %s of these: `meshctl check` says whether it is behind", a.from.Node, count(missing, noun)))
		}
	}
	return lines
}
