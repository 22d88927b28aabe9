package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pod is one that exists.
type pod struct {
	namespace, name string
	service, node   int
	since           time.Time
}

// uid is how a proxy knows it.
func (p pod) uid() string { return "Kubernetes//Pod/" + p.namespace + "/" + p.name }

// create writes a pod of a service, bound to a node as the scheduler does. It
// has no address yet, so that proxies do not hear of it.
func (m *mesh) create(ctx context.Context, service int) (pod, *corev1.Pod, error) {
	m.mu.Lock()
	m.next++
	n := m.next
	m.mu.Unlock()
	ns, app := m.namespaceOf(service), serviceName(service)
	p := pod{namespace: ns, name: fmt.Sprintf("%s-7d9c5b6f4-%05x", app, n), service: service, node: n % m.opts.nodes}
	object, err := m.client.CoreV1().Pods(ns).Create(ctx, template(p.name, app, nodeName(p.node)), metav1.CreateOptions{})
	if err == nil {
		object.Status = running(fmt.Sprintf("10.%d.%d.%d", 64+n>>16, n>>8&255, n&255))
	}
	return p, object, err
}

// start writes the status of a pod that runs and is ready, as its kubelet does:
// this is the change that proxies hear of.
func (m *mesh) start(ctx context.Context, object *corev1.Pod) error {
	_, err := m.client.CoreV1().Pods(object.Namespace).UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return err
}

// remove deletes a pod at once, as its kubelet does when all of it has ended.
func (m *mesh) remove(ctx context.Context, p pod) error {
	var now int64
	return m.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: &now})
}

// proxy makes the pod of a node's ztunnel, whose token the client carries.
func (m *mesh) proxy(ctx context.Context, node int) (*corev1.Pod, error) {
	return m.client.CoreV1().Pods(systemNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ztunnel-%05x", node), Labels: map[string]string{"app": "ztunnel"}},
		Spec:       corev1.PodSpec{NodeName: nodeName(node), ServiceAccountName: proxyAccount, Containers: []corev1.Container{{Name: "ztunnel", Image: "ztunnel"}}},
	}, metav1.CreateOptions{})
}

// template is a pod as Deployments make them, with what istiod-lite has no use
// for in the usual amounts.
func template(name, app, node string) *corev1.Pod {
	controller := true
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")}}, PeriodSeconds: 10}
	}
	env := []corev1.EnvVar{
		{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
		{Name: "DATABASE_URL", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: app}, Key: "url"}}},
	}
	for i := range 12 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", i), Value: "a setting of some length, as they have it"})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"app": app, "version": "v1", "pod-template-hash": "7d9c5b6f4", "app.kubernetes.io/part-of": "shop"},
			Annotations: map[string]string{
				"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true", "prometheus.io/port": "8080",
				"checksum/config": "4f2d5c1f9f0b8d2b9f2d7f3bb4d1c1a0f6a8d9f0c2e4b6a8d0f2c4e6a8b0d2f4",
			},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-7d9c5b6f4", UID: types.UID("0f7f1c2e-" + app), Controller: &controller}},
		},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: app,
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: app}}}}},
			Containers: []corev1.Container{{
				Name: "app", Image: "registry.example.com/shop/" + app + ":1.27.3", Env: env,
				Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9102}},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/app"}},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
				},
				LivenessProbe: probe("/live"), ReadinessProbe: probe("/ready"),
			}},
		},
	}
}

func running(ip string) corev1.PodStatus {
	now, started := metav1.Now(), true
	condition := func(t corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now}
	}
	return corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "172.16.0.1", StartTime: &now, QOSClass: corev1.PodQOSBurstable,
		Conditions: []corev1.PodCondition{condition(corev1.PodInitialized), condition(corev1.PodReady), condition(corev1.ContainersReady), condition(corev1.PodScheduled)},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Ready: true, Started: &started, Image: "registry.example.com/shop/app:1.27.3",
			ImageID:     "registry.example.com/shop/app@sha256:4f2d5c1f9f0b8d2b9f2d7f3bb4d1c1a0f6a8d9f0c2e4b6a8d0f2c4e6a8b0d2f4",
			ContainerID: "containerd://4f2d5c1f9f0b8d2b9f2d7f3bb4d1c1a0f6a8d9f0c2e4b6a8d0f2c4e6a8b0d2f4",
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
}
