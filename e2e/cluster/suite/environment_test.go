package suite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/e2e/cluster"
)

// meshNamespace is where the mesh lives.
const meshNamespace = "istio-system"

// The nodes by their parts. Servers and clients that are watched during
// disturbances live on the first two; the last is stopped, cut and restarted.
const (
	nodeClient = "n1"
	nodeServer = "n2"
	nodeVictim = "n3"
)

// within bounds waits for what takes a second when nothing else runs.
const within = 90 * time.Second

// pollEvery is how often states are looked at.
const pollEvery = 200 * time.Millisecond

// environment is the cluster and its clients.
type environment struct {
	cluster *cluster.Cluster
	config  *rest.Config
	client  kubernetes.Interface
	dynamic dynamic.Interface
	mapper  meta.RESTMapper
}

func connect(ctx context.Context, c *cluster.Cluster) (*environment, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	// Tests poll in parallel.
	config.QPS, config.Burst = 200, 400
	e := &environment{cluster: c, config: config}
	if e.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if e.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	e.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(e.client.Discovery()))
	if _, err := e.client.CoreV1().Namespaces().Get(ctx, meshNamespace, metav1.GetOptions{}); err != nil {
		return nil, fmt.Errorf("no mesh in the cluster: %w; install it with `bin/meshctl install`", err)
	}
	return e, nil
}

// apply makes or changes the objects of a YAML stream; those of namespaced kinds
// that name no namespace are put into namespace.
func (e *environment) apply(ctx context.Context, namespace, text string) error {
	for _, doc := range strings.Split(text, "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
			return fmt.Errorf("%w in:\n%s", err, doc)
		}
		resource, err := e.resource(obj, namespace)
		if err != nil {
			return err
		}
		body, err := obj.MarshalJSON()
		if err != nil {
			return err
		}
		force := true
		if _, err := resource.Patch(ctx, obj.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "e2e", Force: &force}); err != nil {
			return fmt.Errorf("apply %s %s: %w", obj.GetKind(), obj.GetName(), err)
		}
	}
	return nil
}

// remove deletes what apply made.
func (e *environment) remove(ctx context.Context, namespace, text string) error {
	for _, doc := range strings.Split(text, "\n---\n") {
		obj := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &obj.Object); err != nil {
			return err
		}
		resource, err := e.resource(obj, namespace)
		if err != nil {
			return err
		}
		if err := resource.Delete(ctx, obj.GetName(), metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (e *environment) resource(obj *unstructured.Unstructured, namespace string) (dynamic.ResourceInterface, error) {
	gvk := obj.GroupVersionKind()
	mapping, err := e.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return e.dynamic.Resource(mapping.Resource), nil
	}
	if ns := obj.GetNamespace(); ns != "" {
		namespace = ns
	}
	return e.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

// eventually calls f until it returns nil, for a bounded time.
func eventually(t testing.TB, bound time.Duration, what string, f func() error) {
	t.Helper()
	if err := poll(t.Context(), bound, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, bound, err)
	}
}

func poll(ctx context.Context, bound time.Duration, f func() error) error {
	deadline := time.Now().Add(bound)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// holds calls f for a while and fails when it ever returns an error: for what must stay as it is.
func holds(t testing.TB, for_ time.Duration, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(for_); time.Now().Before(deadline); time.Sleep(pollEvery) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// meshctl runs the operator's program on the cluster, as a user does.
func meshctl(t testing.TB, args ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin("meshctl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+suite.cluster.Kubeconfig())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("meshctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
