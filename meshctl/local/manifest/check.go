package manifest

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

func checkPod(o *Object) []error {
	pod := o.Value.(*corev1.Pod)
	pod.Namespace = o.Namespace
	return append(checkHostname(pod.Name, "metadata.name"), checkPodSpec(&pod.Spec, "spec")...)
}

func checkDeployment(o *Object) []error {
	d := o.Value.(*deployment)
	d.Namespace = o.Namespace
	errs := checkPodSpec(&d.Spec.Template.Spec, "spec.template.spec")
	if d.Spec.Replicas != nil && *d.Spec.Replicas < 0 {
		errs = append(errs, fmt.Errorf("spec.replicas: %d is negative", *d.Spec.Replicas))
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	switch {
	case d.Spec.Selector == nil:
		errs = append(errs, errors.New("spec.selector: must be set and match spec.template.metadata.labels"))
	case err != nil:
		errs = append(errs, fmt.Errorf("spec.selector: %w", err))
	case !selector.Matches(labelSet(d.Spec.Template.Labels)):
		errs = append(errs, errors.New("spec.selector: does not match spec.template.metadata.labels"))
	}
	if p := d.Spec.Template.Spec.RestartPolicy; p != "" && p != corev1.RestartPolicyAlways {
		errs = append(errs, fmt.Errorf("spec.template.spec.restartPolicy: %q; a Deployment's pods are always restarted", p))
	}
	return errs
}

type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }

func checkHostname(name, path string) []error {
	if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
		return []error{fmt.Errorf("%s: %q is the pod's host name too: %s", path, name, msgs[0])}
	}
	return nil
}

// checkPodSpec refuses what would change the meaning of the pod if it were
// ignored. What only a container has (image, resources, volumes' sources…) is
// ignored; docs/cli.md lists it.
func checkPodSpec(spec *corev1.PodSpec, path string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(path+"."+format, args...)) }
	if spec.HostNetwork {
		bad("hostNetwork: not supported by the local mesh: every pod has a network namespace of its own")
	}
	if len(spec.InitContainers) > 0 {
		bad("initContainers: not supported by the local mesh: do it in the container's own command")
	}
	if len(spec.Containers) == 0 {
		bad("containers: a pod needs at least one")
	}
	switch spec.RestartPolicy {
	case "", corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
	default:
		bad("restartPolicy: %q is not one of Always, OnFailure, Never", spec.RestartPolicy)
	}
	names := map[string]bool{}
	for i, c := range spec.Containers {
		at := fmt.Sprintf("containers[%d]", i)
		if c.Name == "" {
			bad("%s.name: must be set", at)
		}
		if names[c.Name] {
			bad("%s.name: %q is used twice", at, c.Name)
		}
		names[c.Name] = true
		if len(c.Command) == 0 {
			bad("%s.command: must be set: the local mesh runs commands as processes of this machine and reads no image", at)
		}
		for j, env := range c.Env {
			if env.ValueFrom != nil && env.ValueFrom.FieldRef == nil {
				bad("%s.env[%d].valueFrom: only fieldRef is supported by the local mesh", at, j)
			}
		}
		if len(c.EnvFrom) > 0 {
			bad("%s.envFrom: not supported by the local mesh", at)
		}
		for j, p := range c.Ports {
			if p.ContainerPort < 1 || p.ContainerPort > 65535 {
				bad("%s.ports[%d].containerPort: %d is not a port", at, j, p.ContainerPort)
			}
		}
		if p := c.ReadinessProbe; p != nil && p.GRPC != nil {
			bad("%s.readinessProbe.grpc: not supported by the local mesh; use tcpSocket, httpGet or exec", at)
		}
	}
	return errs
}

func checkService(o *Object) []error {
	s := o.Value.(*corev1.Service)
	s.Namespace = o.Namespace
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("spec."+format, args...)) }
	if msgs := validation.IsDNS1035Label(s.Name); len(msgs) > 0 {
		errs = append(errs, fmt.Errorf("metadata.name: %s", msgs[0]))
	}
	switch s.Spec.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
	default:
		bad("type: %q is not supported by the local mesh", s.Spec.Type)
	}
	if len(s.Spec.Ports) == 0 && s.Spec.ClusterIP != corev1.ClusterIPNone {
		bad("ports: a service needs at least one")
	}
	names := map[string]bool{}
	for i, p := range s.Spec.Ports {
		if p.Port < 1 || p.Port > 65535 {
			bad("ports[%d].port: %d is not a port", i, p.Port)
		}
		if len(s.Spec.Ports) > 1 && p.Name == "" {
			bad("ports[%d].name: must be set when a service has several ports", i)
		}
		if names[p.Name] {
			bad("ports[%d].name: %q is used twice", i, p.Name)
		}
		names[p.Name] = true
		switch p.Protocol {
		case "", corev1.ProtocolTCP, corev1.ProtocolUDP:
		default:
			bad("ports[%d].protocol: %q is not supported by the local mesh", i, p.Protocol)
		}
	}
	for i, ip := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		if ip == "" || ip == corev1.ClusterIPNone {
			continue
		}
		if _, err := netip.ParseAddr(ip); err != nil {
			field := "clusterIP"
			if i > 0 {
				field = fmt.Sprintf("clusterIPs[%d]", i-1)
			}
			bad("%s: %q is not an IP address", field, ip)
		}
	}
	return errs
}
