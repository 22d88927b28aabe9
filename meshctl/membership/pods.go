package membership

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// State tells where a pod stands.
type State string

// The states. A pod that is Pending is meant to be in; its connections may fail.
const (
	In      State = "in"
	Pending State = "pending"
	Out     State = "none"
)

// Pod is one pod that has not ended.
type Pod struct {
	Name  string `json:"name"`
	Node  string `json:"node,omitempty"`
	State State  `json:"state"`
	// Why tells why it is not in, empty for a pod that nobody wants in.
	Why string `json:"why,omitempty"`
	// own tells that the pod's own label wants it in, whatever its namespace says.
	own bool
}

// ground is what decides beside the pod itself.
type ground struct {
	namespace map[string]string // labels
	excluded  bool
	installed bool            // there is a mesh
	agents    map[string]bool // node: its agent is ready
	proxies   map[string]bool // node: its ztunnel is ready
}

// judge tells where a pod stands, by what its node's agent wrote on it.
func (g ground) judge(p *corev1.Pod) Pod {
	out := Pod{Name: p.Name, Node: p.Spec.NodeName, State: Out}
	mode, own := p.Labels[mesh.ModeLabel]
	out.own = own && mode == mesh.ModeAmbient
	// Another value than the two counts as no label.
	wanted := g.namespace[mesh.ModeLabel] == mesh.ModeAmbient && mode != mesh.ModeNone || out.own
	switch p.Annotations[mesh.RedirectionAnnotation] {
	case "enabled":
		out.State = In
		if !wanted {
			out.Why = "is being released"
		}
		return out
	case "pending":
		out.State, out.Why = Pending, g.blame(p, "captured, and no ztunnel has taken it yet")
		return out
	}
	switch {
	case own && mode == mesh.ModeNone:
		out.Why = "its own label " + mesh.ModeLabel + "=none"
	case own && !wanted:
		out.Why = fmt.Sprintf("its own label %s=%s means nothing (ambient and none do), and its namespace does not want it in", mesh.ModeLabel, mode)
	case !wanted:
	case g.excluded:
		out.Why = "its namespace is excluded from the mesh"
	case p.Spec.HostNetwork:
		out.Why = "uses its node's network (hostNetwork)"
	case p.Spec.NodeName == "":
		out.State, out.Why = Pending, "not scheduled yet"
	case p.DeletionTimestamp != nil:
		out.Why = "ending"
	default:
		out.State, out.Why = Pending, g.blame(p, "its node's agent has not taken it yet")
	}
	return out
}

// blame names what keeps a pod from the mesh, if that is plain, or says otherwise.
func (g ground) blame(p *corev1.Pod, otherwise string) string {
	switch node := p.Spec.NodeName; {
	case !g.installed:
		return NoMesh
	case !g.agents[node]:
		return "no tulle-agent is ready on " + node
	case !g.proxies[node]:
		return "no ztunnel is ready on " + node
	}
	return otherwise
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
