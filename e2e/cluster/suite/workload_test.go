package suite_test

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tulle-mesh/tulle/e2e/cluster/catalog"
)

// Ports of the test app.
const (
	portHTTP  = 8080
	portEcho  = 9000
	portFirst = 9001
)

// option changes a pod of the test app.
type option func(*corev1.PodTemplateSpec)

func onNode(name string) option {
	// A selector, not a node's name: the scheduler still judges the node.
	return func(p *corev1.PodTemplateSpec) {
		p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": name}
	}
}

// withNodes lets a pod run on these nodes only.
func withNodes(names ...string) option {
	return func(p *corev1.PodTemplateSpec) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: names},
			}}},
		}}}
	}
}

func withAccount(name string) option {
	return func(p *corev1.PodTemplateSpec) { p.Spec.ServiceAccountName = name }
}

func withLabel(key, value string) option {
	return func(p *corev1.PodTemplateSpec) { p.Labels[key] = value }
}

func withArgs(args ...string) option {
	return func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Args = args }
}

func onHostNetwork(p *corev1.PodTemplateSpec) {
	p.Spec.HostNetwork = true
	p.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	// A node's ports are one pod's; this pod only is a client.
	p.Spec.Containers[0].Args = []string{"serve", "--http=:18080", "--tcp=:19000", "--first=:19001"}
	p.Spec.Containers[0].ReadinessProbe.HTTPGet.Port = intstr.FromInt32(18080)
	p.Spec.Containers[0].LivenessProbe = nil
}

// spread puts the pods of an app onto different nodes.
func spread(p *corev1.PodTemplateSpec) {
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: "kubernetes.io/hostname", WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}},
	}}
}

// template is a pod of the test app, with probes of both kinds.
func (s *space) template(app string, options []option) corev1.PodTemplateSpec {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 3,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(portHTTP)}}}
	}
	live := probe("/")
	live.PeriodSeconds, live.FailureThreshold = 5, 6
	grace := int64(12)
	p := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "app", Image: catalog.App, ReadinessProbe: probe("/ready"), LivenessProbe: live,
				Env: []corev1.EnvVar{
					field("POD_NAME", "metadata.name"), field("NODE_NAME", "spec.nodeName"), field("POD_IP", "status.podIP"),
					{Name: "MARKER", Value: s.marker},
				},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: portHTTP}, {Name: "echo", ContainerPort: portEcho}, {Name: "first", ContainerPort: portFirst}},
			}},
		},
	}
	for _, o := range options {
		o(&p)
	}
	return p
}

// deploy makes a Deployment of the test app and waits until it is ready.
func (s *space) deploy(app string, replicas int, options ...option) []corev1.Pod {
	s.t.Helper()
	n := int32(replicas)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, Template: s.template(app, options),
		},
	}
	if _, err := suite.client.AppsV1().Deployments(s.name).Create(s.t.Context(), d, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	return s.ready(app, replicas)
}

// service makes a Service of the test app: ports 80, 9000 and 9001.
func (s *space) service(app string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	s.t.Helper()
	spec := corev1.ServiceSpec{
		Selector: map[string]string{"app": app},
		Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromString("http")},
			{Name: "tcp-echo", Port: portEcho, TargetPort: intstr.FromString("echo")},
			{Name: "tcp-first", Port: portFirst, TargetPort: intstr.FromString("first")},
		},
	}
	for _, c := range change {
		c(&spec)
	}
	svc, err := suite.client.CoreV1().Services(s.name).Create(s.t.Context(),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: app}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return svc
}

// account makes a service account.
func (s *space) account(name string) {
	s.t.Helper()
	if _, err := suite.client.CoreV1().ServiceAccounts(s.name).Create(s.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// client deploys a pod to send from and returns it.
func (s *space) client(name string, options ...option) *pod {
	s.t.Helper()
	p := s.deploy(name, 1, options...)[0]
	return &pod{s, p.Name, p.Status.PodIP, p.Spec.NodeName}
}

// host is a service's name as pods of any namespace resolve it.
func (s *space) host(service string) string {
	return fmt.Sprintf("%s.%s.svc.cluster.local", service, s.name)
}

// ip6 is the pod's address of the other IP version, "" without.
func ip6(p *corev1.Pod) string {
	i := slices.IndexFunc(p.Status.PodIPs, func(ip corev1.PodIP) bool { return strings.Contains(ip.IP, ":") })
	if i < 0 {
		return ""
	}
	return p.Status.PodIPs[i].IP
}
