package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/kube"
)

// Cluster is a mesh in a Kubernetes cluster.
type Cluster struct {
	Client *kube.Client
	// System is the namespace of the mesh's own parts, RootNamespace to Istio.
	System string
}

// InCluster is the mesh whose parts run in the namespace system.
func InCluster(c *kube.Client, system string) *Cluster { return &Cluster{Client: c, System: system} }

// Labels and annotations of membership.
const (
	ModeLabel             = "istio.io/dataplane-mode"
	ModeAmbient           = "ambient"
	ModeNone              = "none"
	RedirectionAnnotation = "ambient.istio.io/redirection"
)

// The loopback ports of the components' admin interfaces; the agent has its pages
// beside its metrics.
var adminPorts = map[string]uint16{Ztunnel: 15000, Istiod: 15000, Agent: 15019, Waypoint: 15000}

// Local implements Mesh.
func (*Cluster) Local() bool { return false }

// Namespace implements Mesh.
func (c *Cluster) Namespace() string { return c.Client.Namespace }

// String implements Mesh.
func (c *Cluster) String() string {
	if c.Client.Context == "" {
		return "the cluster at " + c.Client.Config.Host
	}
	return fmt.Sprintf("the cluster of context %q", c.Client.Context)
}

// Components implements Mesh.
func (c *Cluster) Components(ctx context.Context, kind string) ([]*Component, error) {
	namespace, selector := c.System, "app="+kind
	if kind == Waypoint {
		namespace, selector = "", gatewayManaged
	}
	pods, err := c.list(ctx, namespace, selector)
	if err != nil {
		return nil, err
	}
	var out []*Component
	for i := range pods {
		p := &pods[i]
		x := &Component{Kind: kind, Name: p.Name, Node: p.Spec.NodeName}
		if kind == Waypoint {
			x.Name, x.Gateway = p.Namespace+"/"+p.Name, p.Namespace+"/"+p.Labels[gatewayName]
		}
		x.Ready, x.Reason = readiness(p)
		if len(p.Spec.Containers) > 0 {
			x.Version = imageTag(p.Spec.Containers[0].Image)
		}
		for _, s := range p.Status.ContainerStatuses {
			x.Restarts += int(s.RestartCount)
		}
		port := adminPorts[kind]
		x.ask = func(ctx context.Context, method, path string) ([]byte, error) {
			return c.ask(ctx, method, p.Namespace, p.Name, port, path)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *Component) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// ask sends one request through a port-forward of its own.
func (c *Cluster) ask(ctx context.Context, method, namespace, pod string, port uint16, path string) ([]byte, error) {
	client := c.Client.PodHTTP(namespace, pod, port)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://localhost:%d%s", port, path), nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, &RefusalError{Status: res.Status, Text: strings.TrimSpace(string(body))}
	}
	return body, nil
}

// withoutURL takes the method and URL off an error of http: the caller names the
// component, and the address of a port-forward means nothing.
func withoutURL(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return fmt.Errorf("no answer within %v", answerTimeout)
		}
		return inner
	}
	return err
}

// list pages through the pods of a namespace.
func (c *Cluster) list(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	var out []corev1.Pod
	options := metav1.ListOptions{LabelSelector: selector, Limit: pageObjects}
	for {
		page, err := c.Client.Kubernetes.CoreV1().Pods(namespace).List(ctx, options)
		if err != nil {
			return nil, c.Client.Explain(err)
		}
		out = append(out, page.Items...)
		if options.Continue = page.Continue; options.Continue == "" {
			return out, nil
		}
	}
}

// Pods implements Mesh.
func (c *Cluster) Pods(ctx context.Context, namespace string) ([]Pod, error) {
	pods, err := c.list(ctx, namespace, "")
	if err != nil {
		return nil, err
	}
	modes, err := c.modes(ctx, namespace)
	if err != nil {
		return nil, err
	}
	agents, err := c.agents(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Pod, 0, len(pods))
	for i := range pods {
		out = append(out, c.Describe(&pods[i], modes[pods[i].Namespace], agents))
	}
	return out, nil
}

// agents is [Cluster.Agents] for the reasons why pods are outside: they are told as
// well as may be to those who have no right to read the setting. The one that is then
// wrong advises a join, which needs the same right and says so.
func (c *Cluster) agents(ctx context.Context) (Agents, error) {
	a, err := c.Agents(ctx)
	if apierrors.IsForbidden(err) {
		return Agents{}, nil
	}
	return a, err
}

// modes are the namespaces' dataplane modes, of one or of all.
func (c *Cluster) modes(ctx context.Context, namespace string) (map[string]string, error) {
	out := map[string]string{}
	if namespace != "" {
		ns, err := c.Client.Kubernetes.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, c.Client.Explain(err)
		}
		if err == nil {
			out[namespace] = ns.Labels[ModeLabel]
		}
		return out, nil
	}
	all, err := c.Client.Kubernetes.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.Client.Explain(err)
	}
	for _, ns := range all.Items {
		out[ns.Name] = ns.Labels[ModeLabel]
	}
	return out, nil
}

// Pod implements Mesh.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	if namespace == "" {
		namespace = c.Namespace()
	}
	p, err := c.Client.Kubernetes.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Pod{}, &NotFoundError{Kind: "pod", Namespace: namespace, Name: name, Hint: c.elsewhere(ctx, namespace, name)}
	}
	if err != nil {
		return Pod{}, c.Client.Explain(err)
	}
	modes, err := c.modes(ctx, namespace)
	if err != nil {
		return Pod{}, err
	}
	agents, err := c.agents(ctx)
	if err != nil {
		return Pod{}, err
	}
	return c.Describe(p, modes[namespace], agents), nil
}

// elsewhere says where a pod of that name is, or which there are that begin so.
func (c *Cluster) elsewhere(ctx context.Context, namespace, name string) string {
	if _, err := c.Client.Kubernetes.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return "there is no namespace " + namespace
	}
	pods, err := c.list(ctx, "", "")
	if err != nil {
		return "say the namespace with -n or as NAMESPACE/NAME"
	}
	var same, similar []string
	for _, p := range pods {
		switch {
		case p.Name == name:
			same = append(same, p.Namespace+"/"+p.Name)
		case p.Namespace == namespace && strings.HasPrefix(p.Name, name+"-"):
			similar = append(similar, p.Name)
		}
	}
	switch {
	case len(same) > 0:
		return "did you mean " + strings.Join(same, " or ") + "?"
	case len(similar) > 0:
		return "did you mean deploy/" + name + ", or its pod " + similar[0] + "?"
	}
	return "`kubectl get pods -n " + namespace + "` lists its pods"
}

// Describe is a pod in the mesh's words; mode is its namespace's dataplane mode.
func (c *Cluster) Describe(p *corev1.Pod, mode string, agents Agents) Pod {
	out := Pod{
		Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Phase: string(p.Status.Phase),
		HostNetwork: p.Spec.HostNetwork, Account: p.Spec.ServiceAccountName, Labels: p.Labels,
		Member: p.Annotations[RedirectionAnnotation] == "enabled",
	}
	if out.Account == "" {
		out.Account = "default"
	}
	for _, ip := range p.Status.PodIPs {
		out.IPs = append(out.IPs, ip.IP)
	}
	out.Ready, out.Reason = readiness(p)
	if !out.Member {
		out.Outside = c.outside(p, mode, agents)
	}
	return out
}

// outside says why a pod is not in the mesh.
func (c *Cluster) outside(p *corev1.Pod, mode string, agents Agents) string {
	own := p.Labels[ModeLabel]
	switch {
	case p.Spec.HostNetwork:
		return "it runs on its node's network (hostNetwork), which the mesh does not capture"
	case p.Namespace == c.System:
		return "it belongs to the mesh itself"
	case agents.Excludes(p.Namespace):
		return agents.WhyExcluded(p.Namespace)
	case own == ModeNone:
		return "its own label " + ModeLabel + "=none keeps it out; remove the label to let it in"
	case own == "" && mode == ModeNone:
		return "its namespace is labelled " + ModeLabel + "=none"
	case own != ModeAmbient && mode != ModeAmbient:
		if own != "" || mode != "" {
			return fmt.Sprintf("its label %s is %q, which is not ambient", ModeLabel, cmp.Or(own, mode))
		}
		return "neither it nor its namespace has the label " + ModeLabel + "=ambient (meshctl namespace join " + p.Namespace + ")"
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return "it has ended"
	case p.Spec.NodeName == "":
		return "it is not scheduled to a node yet"
	case p.Annotations[RedirectionAnnotation] == "pending":
		return "it is captured, but the ztunnel of node " + p.Spec.NodeName + " has not taken it: its log says why"
	}
	return "it is labelled, but the agent of node " + p.Spec.NodeName + " has not captured it: the log of that node's " + Agent + " says why"
}

// readiness says whether a pod is ready and why not.
func readiness(p *corev1.Pod) (bool, string) {
	if p.DeletionTimestamp != nil {
		return false, "it is being deleted"
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "PodInitializing" && c.State.Waiting.Reason != "ContainerCreating":
			return false, joined(c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			return false, fmt.Sprintf("container %s ended with exit code %d", c.Name, c.State.Terminated.ExitCode)
		}
	}
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			return true, ""
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			return false, joined("it is not scheduled", c.Message)
		}
	}
	if p.Status.Phase == corev1.PodRunning {
		return false, "it runs, but is not ready"
	}
	return false, strings.ToLower(string(p.Status.Phase))
}

func joined(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + message
}

// Services implements Mesh.
func (c *Cluster) Services(ctx context.Context, namespace string) ([]Service, error) {
	list, err := c.Client.Kubernetes.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.Client.Explain(err)
	}
	out := make([]Service, 0, len(list.Items))
	for _, s := range list.Items {
		svc := Service{Namespace: s.Namespace, Name: s.Name, Hostname: s.Name + "." + s.Namespace + ".svc", HasSelector: len(s.Spec.Selector) > 0}
		for _, ip := range s.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				svc.IPs = append(svc.IPs, ip)
			}
		}
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			svc.ExternalName = s.Spec.ExternalName
		}
		for _, p := range s.Spec.Ports {
			svc.Ports = append(svc.Ports, uint16(p.Port))
		}
		out = append(out, svc)
	}
	return out, nil
}

// imageTag is the tag of an image, or its digest.
func imageTag(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	return "latest"
}

// Raw lists all pods of the cluster as they are.
func (c *Cluster) Raw(ctx context.Context) ([]corev1.Pod, error) { return c.list(ctx, "", "") }

// ServiceLabels are the labels of a Service.
func (c *Cluster) ServiceLabels(ctx context.Context, namespace, name string) (map[string]string, error) {
	svc, err := c.Client.Kubernetes.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, c.Client.Explain(err)
	}
	return svc.Labels, nil
}

// NamespaceLabels are the labels of a namespace.
func (c *Cluster) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	ns, err := c.Client.Kubernetes.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, c.Client.Explain(err)
	}
	return ns.Labels, nil
}
