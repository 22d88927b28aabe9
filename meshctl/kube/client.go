package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	istio "istio.io/client-go/pkg/clientset/versioned"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	gateway "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/tulle-mesh/tulle/internal/telemetry"
)

// Client talks to one cluster.
type Client struct {
	Config     *rest.Config
	Kubernetes kubernetes.Interface
	Dynamic    dynamic.Interface
	// Mapper asks the server which resources there are when it is first used; after
	// CRDs were made, meta.MaybeResetRESTMapper(Mapper) has it ask again.
	Mapper  meta.RESTMapper
	Istio   istio.Interface
	Gateway gateway.Interface
	// Context is the kubeconfig's context; empty inside a pod.
	Context string
	// Namespace is the one that the context brings, "default" without.
	Namespace string
	// Version is the server's.
	Version version.Info
}

// Connect chooses the cluster and asks its API server for its version, so that
// every command fails early and in the same words when it does not answer.
func Connect(ctx context.Context, flags Flags) (*Client, error) {
	config, name, namespace, err := flags.load()
	if err != nil {
		return nil, err
	}
	return New(ctx, config, name, namespace)
}

// New is Connect for settings that did not come from flags; context and
// namespace may be empty.
func New(ctx context.Context, config *rest.Config, context, namespace string) (*Client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = queriesPerSecond, burst
	config.UserAgent = "meshctl/" + telemetry.Version
	config.WarningHandler = rest.NewWarningWriter(os.Stderr, rest.WarningWriterOptions{Deduplicate: true})
	if namespace == "" {
		namespace = "default"
	}
	c := &Client{Config: config, Context: context, Namespace: namespace}
	web, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, c.Explain(err)
	}
	core, err := kubernetes.NewForConfigAndClient(config, web)
	if err != nil {
		return nil, c.Explain(err)
	}
	var errs [3]error
	c.Kubernetes = core
	c.Dynamic, errs[0] = dynamic.NewForConfigAndClient(config, web)
	c.Istio, errs[1] = istio.NewForConfigAndClient(config, web)
	c.Gateway, errs[2] = gateway.NewForConfigAndClient(config, web)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, c.Explain(err)
	}
	c.Mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(core.Discovery()))
	if err := c.askVersion(ctx, core); err != nil {
		return nil, c.Explain(err)
	}
	return c, nil
}

func (c *Client) askVersion(ctx context.Context, core *kubernetes.Clientset) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	body, err := core.RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &c.Version); err != nil || c.Version.GitVersion == "" {
		return fmt.Errorf("%s answers, but not as a Kubernetes API server does: check the address in the kubeconfig", c.Config.Host)
	}
	return nil
}
