package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tulle-mesh/tulle/manifests"
	"github.com/tulle-mesh/tulle/meshctl/kube"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// Namespace tells of one namespace and its pods.
type Namespace struct {
	Name string `json:"name"`
	// Mode is the namespace's label: ambient, none, or empty without it.
	Mode    string `json:"mode,omitempty"`
	In      int    `json:"in"`
	Pending int    `json:"pending"`
	Out     int    `json:"none"`
	Pods    []Pod  `json:"pods"`
	// Excluded tells that the agents leave the namespace alone, whatever its labels say.
	Excluded bool `json:"excluded,omitempty"`
}

// List tells of the named namespaces, or of all, in the order of their names. A
// namespace that is not there is an error.
func List(ctx context.Context, client *kube.Client, names ...string) ([]Namespace, error) {
	m, err := look(ctx, client)
	if err != nil {
		return nil, err
	}
	return m.list(ctx, names)
}

// nodes is what the decisions need to know of the nodes.
type nodes struct {
	client          *kube.Client
	agents, proxies map[string]bool
	settings        mesh.Agents
}

func look(ctx context.Context, client *kube.Client) (*nodes, error) {
	m := &nodes{client: client}
	var err error
	if m.agents, err = m.readyNodes(ctx, mesh.Agent); err != nil {
		return nil, err
	}
	if m.proxies, err = m.readyNodes(ctx, mesh.Ztunnel); err != nil {
		return nil, err
	}
	m.settings, err = mesh.InCluster(client, manifests.DefaultNamespace).Agents(ctx)
	return m, err
}

// readyNodes lists the nodes on which a ready pod of a component runs.
func (m *nodes) readyNodes(ctx context.Context, component string) (map[string]bool, error) {
	nodes := make(map[string]bool)
	err := m.pods(ctx, manifests.DefaultNamespace, "app="+component, func(p *corev1.Pod) {
		nodes[p.Spec.NodeName] = nodes[p.Spec.NodeName] || ready(p)
	})
	return nodes, err
}

// pods calls f with every pod of a namespace, page by page.
func (m *nodes) pods(ctx context.Context, namespace, selector string, f func(*corev1.Pod)) error {
	opt := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		list, err := m.client.Kubernetes.CoreV1().Pods(namespace).List(ctx, opt)
		if err != nil {
			return m.client.Explain(err)
		}
		for i := range list.Items {
			f(&list.Items[i])
		}
		if opt.Continue = list.Continue; opt.Continue == "" {
			return nil
		}
	}
}

func (m *nodes) list(ctx context.Context, names []string) ([]Namespace, error) {
	all, err := m.client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, m.client.Explain(err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(all.Items, func(n corev1.Namespace) bool { return n.Name == name }) {
			return nil, fmt.Errorf("there is no namespace %s; `kubectl create namespace %s` makes it", name, name)
		}
	}
	grounds := make(map[string]ground)
	index := make(map[string]int)
	var out []Namespace
	for _, n := range all.Items {
		if len(names) > 0 && !slices.Contains(names, n.Name) {
			continue
		}
		excluded := m.settings.Excludes(n.Name)
		grounds[n.Name] = ground{namespace: n.Labels, excluded: excluded, installed: m.settings.Installed, agents: m.agents, proxies: m.proxies}
		index[n.Name] = len(out)
		out = append(out, Namespace{Name: n.Name, Mode: n.Labels[mesh.ModeLabel], Pods: []Pod{}, Excluded: excluded})
	}
	where := metav1.NamespaceAll
	if len(names) == 1 {
		where = names[0]
	}
	err = m.pods(ctx, where, "", func(p *corev1.Pod) {
		i, ok := index[p.Namespace]
		if !ok || ended(p) {
			return
		}
		n := &out[i]
		pod := grounds[p.Namespace].judge(p)
		switch pod.State {
		case In:
			n.In++
		case Pending:
			n.Pending++
		default:
			n.Out++
		}
		n.Pods = append(n.Pods, pod)
	})
	return out, err
}

// Options say how to change a membership.
type Options struct {
	// Force takes in namespaces that the cluster itself needs to come up.
	Force bool
	// Wait is how long to wait for the pods; zero does not wait.
	Wait time.Duration
	// Say is told what happens, a line at a time; nil tells nobody.
	Say func(line string)
}

// own are namespaces without which a cluster, or the mesh, does not start.
var own = []string{"kube-system", "kube-public", "kube-node-lease", manifests.DefaultNamespace}

// NoMesh is why no pod is in where nobody would take it in.
const NoMesh = "no mesh is installed in this cluster: `meshctl install` first"

// ErrNoMesh is what Join returns then.
var ErrNoMesh = errors.New(NoMesh)

// Join labels namespaces and waits until their pods are in the mesh. The list tells
// where they stand, on an error too.
func Join(ctx context.Context, client *kube.Client, names []string, opt Options) ([]Namespace, error) {
	m, err := look(ctx, client)
	if err != nil {
		return nil, err
	}
	if !m.settings.Installed && !opt.Force {
		return nil, ErrNoMesh
	}
	if _, err := m.list(ctx, names); err != nil {
		return nil, err
	}
	for _, name := range names {
		switch {
		case slices.Contains(own, name) && !opt.Force:
			return nil, fmt.Errorf("namespace %s holds what the cluster or the mesh itself needs to start, and would wait for itself; --force labels it nevertheless", name)
		case m.settings.Excludes(name) && !opt.Force:
			return nil, fmt.Errorf("%s; until then a label does nothing, and --force sets it nevertheless", m.settings.WhyExcluded(name))
		}
	}
	mode := mesh.ModeAmbient
	return m.change(ctx, names, &mode, opt, func(n Namespace) (missing int) { return n.Pending })
}

// Leave takes the label away and waits until the pods are out of the mesh, those apart
// that have a label of their own.
func Leave(ctx context.Context, client *kube.Client, names []string, opt Options) ([]Namespace, error) {
	m, err := look(ctx, client)
	if err != nil {
		return nil, err
	}
	if _, err := m.list(ctx, names); err != nil {
		return nil, err
	}
	return m.change(ctx, names, nil, opt, func(n Namespace) (left int) {
		for _, p := range n.Pods {
			if p.State != Out && !p.own {
				left++
			}
		}
		return left
	})
}

// change sets the label and waits until open counts no pod any more.
func (m *nodes) change(ctx context.Context, names []string, mode *string, opt Options, open func(Namespace) int) ([]Namespace, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]*string{mesh.ModeLabel: mode}}})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		_, err := m.client.Kubernetes.CoreV1().Namespaces().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "meshctl"})
		if err != nil {
			return nil, fmt.Errorf("label namespace %s: %w", name, m.client.Explain(err))
		}
	}
	list, err := m.list(ctx, names)
	if err != nil || opt.Wait <= 0 || !m.settings.Installed {
		return list, err
	}
	ctx, cancel := context.WithTimeout(ctx, opt.Wait)
	defer cancel()
	said := make(map[string]int)
	for {
		left := 0
		for _, n := range list {
			count := open(n)
			left += count
			if was, ok := said[n.Name]; (!ok || was != count) && opt.Say != nil && count > 0 {
				opt.Say(fmt.Sprintf("%s: %d of %d pods to go", n.Name, count, len(n.Pods)))
			}
			said[n.Name] = count
		}
		if left == 0 {
			return list, nil
		}
		select {
		case <-ctx.Done():
			return list, fmt.Errorf("%d pods are not there after %v; the label stays, and the agents go on", left, opt.Wait)
		case <-time.After(pollInterval):
		}
		// The nodes too: an agent may have become ready, or gone.
		if again, err := look(ctx, m.client); err == nil {
			*m = *again
		}
		if again, err := m.list(ctx, names); err == nil {
			list = again
		}
	}
}
