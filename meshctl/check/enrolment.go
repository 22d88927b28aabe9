package check

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// enrolment checks what users label, and what comes of it.
func (r *runner) enrolment() {
	r.category = "enrolment"
	if r.cluster == nil {
		r.localPods()
		return
	}
	const name = "labelled pods are in the mesh"
	namespaces, err := r.cluster.Client.Kubernetes.CoreV1().Namespaces().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	pods, err := r.cluster.Raw(r.ctx)
	if err != nil {
		r.broken(name, err)
		return
	}
	agents, err := r.cluster.Agents(r.ctx)
	if err != nil {
		r.broken(name, err)
		return
	}
	w := world{pods: pods, namespaces: map[string]*corev1.Namespace{}, agents: agents}
	for i := range namespaces.Items {
		w.namespaces[namespaces.Items[i].Name] = &namespaces.Items[i]
	}
	r.members(w)
	r.labels(w)
	r.sidecars(w)
	r.waypoints(w)
	r.callers(w)
	r.networkPolicies(w)
}

// world is what of the cluster several checks look at.
type world struct {
	namespaces map[string]*corev1.Namespace
	pods       []corev1.Pod
	agents     mesh.Agents
}

// wanted reports whether a pod's labels, or its namespace's, ask for the mesh, and the
// agents would hear them.
func (w world) wanted(p *corev1.Pod) bool {
	if w.agents.Excludes(p.Namespace) {
		return false
	}
	switch p.Labels[mesh.ModeLabel] {
	case mesh.ModeAmbient:
		return true
	case mesh.ModeNone:
		return false
	}
	// Another value counts as none at all.
	ns := w.namespaces[p.Namespace]
	return ns != nil && ns.Labels[mesh.ModeLabel] == mesh.ModeAmbient
}

func member(p *corev1.Pod) bool { return p.Annotations[mesh.RedirectionAnnotation] == "enabled" }

func alive(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

func (r *runner) localPods() {
	pods, err := r.mesh.Pods(r.ctx, "")
	const name = "labelled pods are in the mesh"
	if err != nil {
		r.broken(name, err)
		return
	}
	var out []string
	in := 0
	for _, p := range pods {
		switch {
		case p.Member:
			in++
		case !strings.HasPrefix(p.Outside, "neither it nor"):
			out = append(out, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, p.Outside))
		}
	}
	r.unless(out, Failed, fmt.Sprintf("%s (%d)", name, in), "`meshctl local status` and `meshctl local logs agent` say more")
}

// members lists labelled pods that are not captured, with the agents' reasons.
func (r *runner) members(w world) {
	const name = "labelled pods are in the mesh"
	reasons := r.reasons()
	var out, host []string
	in := 0
	for i := range w.pods {
		p := &w.pods[i]
		if !alive(p) || !w.wanted(p) {
			continue
		}
		id := p.Namespace + "/" + p.Name
		switch {
		case p.Spec.HostNetwork:
			host = append(host, id)
		case member(p):
			in++
		case p.Spec.NodeName == "":
			out = append(out, id+": it is not scheduled to a node yet")
		default:
			why := r.cluster.Describe(p, modeOf(w.namespaces[p.Namespace]), w.agents).Outside
			if text := reasons[id]; text != "" {
				why = fmt.Sprintf("%s (the agent of node %s)", text, p.Spec.NodeName)
			}
			out = append(out, id+": "+why)
		}
	}
	r.unless(out, Failed, fmt.Sprintf("%s (%d)", name, in), "the log of the tulle-agent on the pod's node says more")
	if len(host) > 0 {
		r.warn("labelled pods have a network of their own", "pods with hostNetwork are never captured: expect their connections in plaintext, or label them "+mesh.ModeLabel+"=none", host...)
	}
}

func modeOf(ns *corev1.Namespace) string {
	if ns == nil {
		return ""
	}
	return ns.Labels[mesh.ModeLabel]
}

// reasons are the agents' words on pods that are not enrolled.
func (r *runner) reasons() map[string]string {
	out := map[string]string{}
	agents, err := r.mesh.Components(r.ctx, mesh.Agent)
	if err != nil {
		return out
	}
	answers, errs := r.agents(agents)
	for i, a := range answers {
		if errs[i] != nil {
			continue
		}
		for _, p := range a.Pods {
			if p.State != "enrolled" && p.Reason != "" {
				out[p.Namespace+"/"+p.Name] = p.Reason
			}
		}
	}
	return out
}

// labels finds values of the membership label that mean nothing.
func (r *runner) labels(w world) {
	const name = "membership labels say what they mean"
	var wrong []string
	look := func(what string, labels map[string]string, instead string) {
		switch v, ok := labels[mesh.ModeLabel]; {
		case !ok, v == mesh.ModeAmbient, v == mesh.ModeNone:
		default:
			wrong = append(wrong, fmt.Sprintf("%s: %s=%s; the values are ambient and none, and this one is taken as if it were not there%s", what, mesh.ModeLabel, v, instead))
		}
	}
	for _, ns := range w.namespaces {
		look("namespace "+ns.Name, ns.Labels, "")
		switch {
		case modeOf(ns) != mesh.ModeAmbient:
		case ns.Name == r.cluster.System:
			wrong = append(wrong, "namespace "+ns.Name+" is labelled ambient: the mesh's own pods stay outside")
		case w.agents.Excludes(ns.Name):
			wrong = append(wrong, "namespace "+ns.Name+" is labelled ambient, which does nothing: "+w.agents.WhyExcluded(ns.Name))
		}
	}
	for i := range w.pods {
		if p := &w.pods[i]; alive(p) {
			if p.Labels[mesh.ModeLabel] == mesh.ModeAmbient && w.agents.Excludes(p.Namespace) {
				wrong = append(wrong, "pod "+p.Namespace+"/"+p.Name+" is labelled ambient, which does nothing: "+w.agents.WhyExcluded(p.Namespace))
			}
			look("pod "+p.Namespace+"/"+p.Name, p.Labels, ": the label of its namespace decides")
		}
	}
	r.unless(wrong, Warned, name, "kubectl label --overwrite")
}

// sidecars finds namespaces and pods that two ways of being in a mesh claim.
func (r *runner) sidecars(w world) {
	const name = "no pod has a sidecar besides"
	var both []string
	for _, ns := range w.namespaces {
		if modeOf(ns) == mesh.ModeAmbient && (ns.Labels["istio-injection"] == "enabled" || ns.Labels["linkerd.io/inject"] == "enabled" || ns.Annotations["linkerd.io/inject"] == "enabled") {
			both = append(both, "namespace "+ns.Name+" is labelled for injection of sidecars as well")
		}
	}
	for i := range w.pods {
		p := &w.pods[i]
		if !alive(p) || !w.wanted(p) {
			continue
		}
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			if (c.Name == "istio-proxy" || c.Name == "linkerd-proxy") && p.Namespace != r.cluster.System {
				both = append(both, fmt.Sprintf("pod %s/%s has the sidecar %s", p.Namespace, p.Name, c.Name))
			}
		}
	}
	r.unless(both, Warned, name, "remove the injection label and restart the pods: connections would go through both proxies")
}

const (
	useWaypoint       = "istio.io/use-waypoint"
	useWaypointCanary = "istio.io/use-waypoint-canary"
)

// waypoints finds labels that name a Gateway which is not there or not ready.
func (r *runner) waypoints(w world) {
	const name = "waypoints that labels name are there"
	type label struct{ what, namespace, gateway string }
	named := map[string][]label{}
	look := func(key, what, namespace string, l map[string]string) {
		if g := l[key]; g != "" && g != "none" {
			if ns := l[key+"-namespace"]; ns != "" {
				namespace = ns
			}
			named[key] = append(named[key], label{what, namespace, g})
		}
	}
	for i := range w.pods {
		if p := &w.pods[i]; alive(p) {
			look(useWaypoint, "pod "+p.Namespace+"/"+p.Name, p.Namespace, p.Labels)
		}
	}
	for _, key := range []string{useWaypoint, useWaypointCanary} {
		for _, ns := range w.namespaces {
			look(key, "namespace "+ns.Name, ns.Name, ns.Labels)
		}
		services, err := r.cluster.Client.Kubernetes.CoreV1().Services("").List(r.ctx, metav1.ListOptions{LabelSelector: key})
		if err != nil {
			r.broken(name, r.cluster.Client.Explain(err))
			return
		}
		for _, s := range services.Items {
			look(key, "service "+s.Namespace+"/"+s.Name, s.Namespace, s.Labels)
		}
	}
	if len(named) == 0 {
		r.pass(name + " (none)")
		return
	}
	gateways, err := r.cluster.Client.Gateway.GatewayV1().Gateways("").List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.broken(name, r.cluster.Client.Explain(err))
		return
	}
	wrong := func(labels []label) []string {
		var out []string
		for _, l := range labels {
			i := slices.IndexFunc(gateways.Items, func(g gatewayv1.Gateway) bool { return g.Namespace == l.namespace && g.Name == l.gateway })
			switch {
			case i < 0:
				out = append(out, fmt.Sprintf("%s: there is no Gateway %s/%s", l.what, l.namespace, l.gateway))
			case len(gateways.Items[i].Status.Addresses) == 0:
				out = append(out, fmt.Sprintf("%s: Gateway %s/%s has no address yet", l.what, l.namespace, l.gateway))
			}
		}
		return out
	}
	r.unless(wrong(named[useWaypoint]), Failed, name, "make the Gateway, or remove the label: until then connections go past what the waypoint should enforce")
	if second := named[useWaypointCanary]; len(second) > 0 {
		r.unless(wrong(second), Warned, "second waypoints that labels name are there", "make the Gateway that "+useWaypointCanary+" names, or remove the label: until then all connections go through the first waypoint")
	}
}
