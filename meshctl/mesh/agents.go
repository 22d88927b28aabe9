package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Agents is how the node agents of a cluster are set, as their DaemonSet says it. The
// zero value is a cluster without agents.
type Agents struct {
	// Installed tells that the DaemonSet is there.
	Installed bool

	system   string
	excluded []string
}

// Agents reads how the node agents are set.
func (c *Cluster) Agents(ctx context.Context) (Agents, error) {
	set, err := c.Client.Kubernetes.AppsV1().DaemonSets(c.System).Get(ctx, Agent, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Agents{}, nil
	}
	if err != nil {
		return Agents{}, c.Client.Explain(err)
	}
	a := Agents{Installed: true, system: c.System}
	for _, container := range set.Spec.Template.Spec.Containers {
		for _, arg := range container.Args {
			if list, ok := strings.CutPrefix(arg, "--exclude-namespaces="); ok {
				a.excluded = nil
				for name := range strings.SplitSeq(list, ",") {
					a.excluded = append(a.excluded, strings.TrimSpace(name))
				}
			}
		}
	}
	return a, nil
}

// Excludes tells whether the agents leave the pods of a namespace alone, whatever its
// labels and theirs say.
func (a Agents) Excludes(namespace string) bool { return slices.Contains(a.excluded, namespace) }

// WhyExcluded says so of a namespace that the agents exclude, and how to change it.
func (a Agents) WhyExcluded(namespace string) string {
	if namespace == a.system {
		return "namespace " + namespace + " is the mesh's own, which the agents always leave out"
	}
	return fmt.Sprintf("namespace %s is left out of the mesh by the agents' setting --exclude-namespaces; to change that, "+
		"set excludedNamespaces to a list without it (`meshctl upgrade --set 'excludedNamespaces=[...]'`)", namespace)
}
