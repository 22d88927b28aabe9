package check

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// proxies are the node proxies and what they hold.
type proxies struct {
	all   []*mesh.Component
	dumps []*mesh.Dump // nil for those that do not answer
}

// agentStatus is what an agent's /status shows.
type agentStatus struct {
	Node string `json:"node"`
	CNI  struct {
		OK      bool   `json:"ok"`
		File    string `json:"file"`
		Problem string `json:"problem"`
	} `json:"cni"`
	Pods []struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		Member    bool   `json:"member"`
		State     string `json:"state"`
		Reason    string `json:"reason"`
	} `json:"pods"`
}

func (r *runner) dataPlane(c control) proxies {
	r.category = "data plane"
	nodes := r.nodes()
	agents := r.everywhere(mesh.Agent, nodes)
	var p proxies
	p.all = r.everywhere(mesh.Ztunnel, nodes)
	if len(p.all) == 0 {
		return p
	}
	r.sameVersion(p.all, agents, c.istiods)
	var errs []error
	p.dumps, errs = mesh.Each(r.ctx, p.all, func(ctx context.Context, x *mesh.Component) (*mesh.Dump, error) { return x.Dump(ctx) })
	var silent []string
	for i, err := range errs {
		if err != nil && p.all[i].Ready {
			silent = append(silent, err.Error())
		}
	}
	if len(silent) > 0 {
		r.fail("every ztunnel answers", "this needs the right to create pods/portforward in "+r.where(), silent...)
	}
	r.inSync(c, p)
	if r.cluster != nil {
		r.cni(agents)
	}
	return p
}

func (r *runner) where() string {
	if r.cluster == nil {
		return r.mesh.String()
	}
	return r.cluster.System
}

// nodes lists the nodes that should have the data plane: those that run Linux. It
// warns of those that are not ready.
func (r *runner) nodes() []string {
	if r.cluster == nil {
		return nil
	}
	const name = "every node is ready"
	list, err := r.cluster.Client.Kubernetes.CoreV1().Nodes().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return nil
	}
	var names, unready []string
	for i := range list.Items {
		n := &list.Items[i]
		switch os := n.Status.NodeInfo.OperatingSystem; {
		case !nodeReady(n):
			unready = append(unready, n.Name+" is not ready: what it runs is not checked")
		case os == "" || os == "linux":
			names = append(names, n.Name)
		}
	}
	r.unless(unready, Warned, fmt.Sprintf("%s (%d)", name, len(list.Items)), "kubectl describe node says more")
	return names
}

// everywhere checks that a component is ready on every node.
func (r *runner) everywhere(kind string, nodes []string) []*mesh.Component {
	name := kind + " is ready on every node"
	all, err := r.mesh.Components(r.ctx, kind)
	if err != nil {
		r.fail(name, "", err.Error())
		return nil
	}
	var wrong []string
	for _, n := range nodes {
		if !slices.ContainsFunc(all, func(c *mesh.Component) bool { return c.Node == n }) {
			wrong = append(wrong, "node "+n+" has none")
		}
	}
	for _, c := range all {
		// A drained node's neighbours: two on one node is an update under way.
		other := slices.ContainsFunc(all, func(o *mesh.Component) bool { return o != c && o.Node == c.Node && o.Ready })
		if !c.Ready && !other && (nodes == nil || slices.Contains(nodes, c.Node)) {
			wrong = append(wrong, fmt.Sprintf("%s: %s", c, c.Reason))
		}
	}
	hint := fmt.Sprintf("kubectl describe and logs of its pod on that node say more; kubectl describe daemonset %s -n %s says why there is none", kind, r.where())
	if r.cluster == nil {
		hint = "`meshctl local status` and `meshctl local logs` say more"
	}
	if len(all) == 0 && len(wrong) == 0 {
		wrong = []string{"there is none"}
	}
	r.unless(wrong, Failed, fmt.Sprintf("%s (%d)", name, len(all)), hint)
	return all
}

// sameVersion warns of a data plane of several versions, or another than the
// control plane's.
func (r *runner) sameVersion(lists ...[]*mesh.Component) {
	seen := map[string][]string{}
	for _, list := range lists {
		for _, c := range list {
			seen[c.Version] = append(seen[c.Version], c.Kind)
		}
	}
	const name = "all components have one version"
	if len(seen) <= 1 {
		r.pass(name)
		return
	}
	var items []string
	for v, kinds := range seen {
		slices.Sort(kinds)
		items = append(items, fmt.Sprintf("%s: %s", v, strings.Join(slices.Compact(kinds), ", ")))
	}
	r.warn(name, "normal during `meshctl upgrade`; else finish it", items...)
}

// inSync checks what every ready node proxy has acknowledged.
func (r *runner) inSync(c control, p proxies) {
	const name = "every ztunnel is in sync with the control plane"
	var behind []string
	for i, x := range p.all {
		if !x.Ready {
			continue
		}
		served := false
		for _, s := range c.syncz {
			for _, client := range s.Clients {
				if client.Machine != x.Node || !client.OfZtunnel() || r.cluster != nil && !strings.Contains(client.Node, "~"+x.Name+".") {
					continue
				}
				served = true
				for url, w := range client.Types {
					short := url[strings.LastIndexByte(url, '.')+1:]
					switch {
					case w.LastNack != "":
						behind = append(behind, fmt.Sprintf("%s refused %s: %s", x, short, w.LastNack))
					case w.State != "SYNCED":
						behind = append(behind, fmt.Sprintf("%s has not acknowledged %s %s (has %s)", x, short, w.SentVersion, w.AckedVersion))
					}
				}
			}
		}
		switch {
		case served:
		case p.dumps[i] != nil && !p.dumps[i].XDS.Connected:
			behind = append(behind, fmt.Sprintf("%s is not connected to istiod: %s", x, p.dumps[i].XDS.LastError))
		case c.complete:
			behind = append(behind, fmt.Sprintf("%s is connected to no istiod", x))
		}
	}
	if len(c.syncz) == 0 {
		r.broken(name, fmt.Errorf("no istiod answers"))
		return
	}
	r.unless(behind, Failed, name, "the log of the ztunnel says why; until then it works with what it was told last")
}

// cni asks the agents whether new pods come into the mesh.
func (r *runner) cni(agents []*mesh.Component) {
	const name = "the CNI configuration is in place on every node"
	answers, errs := r.agents(agents)
	var wrong []string
	for i, a := range answers {
		switch {
		case !agents[i].Ready:
		case errs[i] != nil:
			wrong = append(wrong, errs[i].Error())
		case !a.CNI.OK:
			wrong = append(wrong, fmt.Sprintf("node %s: %s", agents[i].Node, a.CNI.Problem))
		}
	}
	r.unless(wrong, Failed, name, "the tulle-agent of the node puts it there again by itself; its log says what hinders it. Until then new pods do not start in the mesh")
}

func (r *runner) agents(all []*mesh.Component) ([]agentStatus, []error) {
	return mesh.Each(r.ctx, all, func(ctx context.Context, c *mesh.Component) (agentStatus, error) {
		var st agentStatus
		data, err := c.Get(ctx, "/status")
		if err != nil {
			return st, err
		}
		if err := json.Unmarshal(data, &st); err != nil {
			return st, fmt.Errorf("%s: /status: %w", c, err)
		}
		return st, nil
	})
}
