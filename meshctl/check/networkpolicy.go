package check

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// tunnelPort is where members of the mesh take tunnels.
const tunnelPort = 15008

// networkPolicies finds members whose NetworkPolicies leave no room for the
// tunnel: what comes to a pod in the mesh comes to port 15008, whatever port the
// application has.
func (r *runner) networkPolicies(w world) {
	const name = "NetworkPolicies let the tunnel through (TCP 15008)"
	list, err := r.cluster.Client.Kubernetes.NetworkingV1().NetworkPolicies("").List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	byNamespace := map[string][]networkingv1.NetworkPolicy{}
	for _, p := range list.Items {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	seen := map[string]bool{}
	var wrong []string
	for i := range w.pods {
		pod := &w.pods[i]
		if !alive(pod) || !member(pod) {
			continue
		}
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			if by := blocks(byNamespace[pod.Namespace], pod, direction); by != "" && !seen[by+string(direction)] {
				seen[by+string(direction)] = true
				wrong = append(wrong, fmt.Sprintf("%s/%s blocks it for pod %s (%s)", pod.Namespace, by, pod.Name, direction))
			}
		}
	}
	r.unless(wrong, Failed, name, "allow TCP port 15008 from and to pods of the mesh in these policies; ports of the application are seen inside the tunnel only, by AuthorizationPolicies")
}

// blocks returns the first of the policies that isolate the pod in that direction
// when none of them allows the tunnel's port from or to anybody; else "".
func blocks(policies []networkingv1.NetworkPolicy, pod *corev1.Pod, direction networkingv1.PolicyType) string {
	first := ""
	for i := range policies {
		p := &policies[i]
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) || !has(p, direction) {
			continue
		}
		if first == "" {
			first = p.Name
		}
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range p.Spec.Ingress {
				if allows(rule.Ports) {
					return ""
				}
			}
			continue
		}
		for _, rule := range p.Spec.Egress {
			if allows(rule.Ports) {
				return ""
			}
		}
	}
	return first
}

// has reports whether the policy is about that direction. Policies that say
// nothing are about ingress, and about egress when they have rules for it.
func has(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return direction == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
	}
	for _, t := range p.Spec.PolicyTypes {
		if t == direction {
			return true
		}
	}
	return false
}

// allows reports whether a rule's ports have the tunnel's; no ports are all.
func allows(ports []networkingv1.NetworkPolicyPort) bool {
	for _, p := range ports {
		if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.StrVal != "":
			continue // a container's port, and the tunnel is none
		case p.EndPort != nil && p.Port.IntVal <= tunnelPort && tunnelPort <= *p.EndPort:
			return true
		case p.Port.IntVal == tunnelPort:
			return true
		}
	}
	return len(ports) == 0
}
