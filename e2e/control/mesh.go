package main

import (
	"context"
	"fmt"
	"sync"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	istio "istio.io/client-go/pkg/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/internal/kubetest"
)

// Names that a mesh in Kubernetes has.
const (
	systemNamespace = "istio-system"
	proxyAccount    = "ztunnel"
)

// mesh is the objects of the API.
type mesh struct {
	opts   options
	client kubernetes.Interface
	api    *kubetest.API

	mu   sync.Mutex
	next int // numbers pods and their addresses
}

func newMesh(api *kubetest.API, opts options) (*mesh, error) {
	config := rest.CopyConfig(api.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &mesh{opts: opts, client: client, api: api}, nil
}

func (m *mesh) namespaceOf(service int) string {
	return fmt.Sprintf("team-%d", service%m.opts.namespaces)
}
func serviceName(service int) string { return fmt.Sprintf("svc-%d", service) }
func nodeName(node int) string       { return fmt.Sprintf("node-%d", node) }

// make writes all objects but the pods of services.
func (m *mesh) make(ctx context.Context) error {
	core := m.client.CoreV1()
	ambient := map[string]string{"istio.io/dataplane-mode": "ambient"}
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := m.account(ctx, systemNamespace, proxyAccount); err != nil {
		return err
	}
	if err := each(ctx, m.opts.namespaces, func(ctx context.Context, i int) error {
		_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.namespaceOf(i), Labels: ambient}}, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	if err := each(ctx, m.opts.nodes, func(ctx context.Context, i int) error {
		_, err := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{
			"kubernetes.io/hostname": nodeName(i), "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%3),
		}}}, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	policies, err := istio.NewForConfig(m.api.Config)
	if err != nil {
		return err
	}
	return each(ctx, m.opts.services, func(ctx context.Context, i int) error {
		ns, name := m.namespaceOf(i), serviceName(i)
		if err := m.account(ctx, ns, name); err != nil {
			return err
		}
		if _, err := core.Services(ns).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "grpc", Port: 9090, TargetPort: intstr.FromInt32(9090)},
			}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if i%10 != 0 {
			return nil
		}
		_, err := policies.SecurityV1().AuthorizationPolicies(ns).Create(ctx, &securityv1.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: security.AuthorizationPolicy{
				Selector: &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": name}},
				Rules:    []*security.Rule{{From: []*security.Rule_From{{Source: &security.Source{Namespaces: []string{ns}}}}}},
			},
		}, metav1.CreateOptions{})
		return err
	})
}

func (m *mesh) account(ctx context.Context, namespace, name string) error {
	_, err := m.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// each calls f for 0..n-1, some at a time, and returns the first error.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan int)
	var wg sync.WaitGroup
	for range min(writers, n) {
		wg.Go(func() {
			for i := range todo {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		select {
		case todo <- i:
		case <-ctx.Done():
		}
	}
	close(todo)
	wg.Wait()
	return context.Cause(ctx)
}
