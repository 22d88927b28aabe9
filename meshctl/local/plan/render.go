package plan

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// PodState is what runs of a planned pod.
type PodState struct {
	// Phase is empty for Pending.
	Phase corev1.PodPhase
	Ready bool
	// Since is when the pod started.
	Since time.Time
	// Outside: the pod is not in the mesh yet, whatever its labels say. The control
	// plane tells peers to tunnel to it only once it is; one that has not started is
	// in it before anybody can reach it.
	Outside bool
}

// Render returns the objects as the control plane shall see them: file name to
// YAML. Files are named after kind, namespace and name, so that one changed
// object is one changed file.
func (p *Plan) Render(state func(PodKey) PodState) (map[string][]byte, error) {
	files := map[string][]byte{}
	add := func(kind, namespace, name string, object any) error {
		data, err := yaml.Marshal(object)
		if err != nil {
			return fmt.Errorf("%s %s/%s: %w", kind, namespace, name, err)
		}
		files[FileName(kind, namespace, name)] = data
		return nil
	}
	for _, o := range p.Others {
		// As the user wrote it: encoding a decoded object anew could lose or add.
		var raw map[string]any
		if err := json.Unmarshal(o.Place.JSON, &raw); err != nil {
			return nil, fmt.Errorf("%v: %w", o.Key, err)
		}
		if o.Namespace != "" {
			if meta, ok := raw["metadata"].(map[string]any); ok {
				meta["namespace"] = o.Namespace
			}
		}
		if err := add(o.Kind, o.Namespace, o.Name, raw); err != nil {
			return nil, err
		}
	}
	for _, s := range p.Services {
		if err := add("Service", s.Namespace, s.Name, s.Object); err != nil {
			return nil, err
		}
	}
	for _, pod := range p.Pods {
		if err := add("Pod", pod.Namespace, pod.Name, pod.withStatus(state(pod.PodKey), p.node(pod.Node))); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// FileName is the file of an object in the folder that Render fills.
func FileName(kind, namespace, name string) string {
	if namespace == "" {
		return strings.ToLower(kind) + "_" + name + ".yaml"
	}
	return strings.ToLower(kind) + "_" + namespace + "_" + name + ".yaml"
}

func (p *Plan) node(name string) Node {
	for _, n := range p.Nodes {
		if n.Name == name {
			return n
		}
	}
	return Node{}
}

// withStatus is the pod as the kubelet would report it.
func (p *Pod) withStatus(state PodState, node Node) *corev1.Pod {
	pod := p.Object.DeepCopy()
	if p.Enrolled && state.Outside && !state.Since.IsZero() {
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		pod.Labels[dataplaneLabel] = "none"
	}
	phase := state.Phase
	if phase == "" {
		phase = corev1.PodPending
	}
	ready := corev1.ConditionFalse
	if state.Ready {
		ready = corev1.ConditionTrue
	}
	pod.Status = corev1.PodStatus{
		Phase:  phase,
		HostIP: node.Lan4.Addr().String(),
		PodIP:  p.IPv4.String(),
		PodIPs: []corev1.PodIP{{IP: p.IPv4.String()}, {IP: p.IPv6.String()}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: ready},
		},
	}
	if !state.Since.IsZero() {
		since := metav1.NewTime(state.Since)
		pod.Status.StartTime = &since
	}
	return pod
}
