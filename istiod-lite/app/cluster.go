package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/istiod-lite/authority"
	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/config"
	"github.com/tulle-mesh/tulle/istiod-lite/deploy"
	"github.com/tulle-mesh/tulle/istiod-lite/leader"
	"github.com/tulle-mesh/tulle/istiod-lite/rootcert"
	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/kube"
	"github.com/tulle-mesh/tulle/istiod-lite/status"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// leaseName is the Lease of the replica that writes.
const leaseName = "istiod-lite-leader"

// cluster is a mesh in Kubernetes: objects are watched, the authority is kept in
// a Secret, tokens are reviewed by the API server. One replica at a time writes.
type cluster struct {
	cfg      config.Config
	log      *zap.Logger
	registry prometheus.Registerer
	rest     *rest.Config
	client   kubernetes.Interface
	store    *authority.Store
	status   *status.Writer
	deploy   *deploy.Controller // nil when no waypoints are run
	election atomic.Pointer[leader.Election]
}

func newCluster(cfg config.Config, version string, log *zap.Logger, registry prometheus.Registerer) (*backend, error) {
	c := &cluster{cfg: cfg, log: log, registry: registry}
	var err error
	if c.rest, err = restConfig(cfg.Kubernetes.Kubeconfig); err != nil {
		return nil, err
	}
	c.rest.UserAgent = "istiod-lite/" + version
	if c.client, err = c.clientset(writesPerSecond); err != nil {
		return nil, err
	}
	src, err := kube.New(kube.Config{REST: c.rest, RootNamespace: cfg.RootNamespace, Logger: log.Named("config"), Registerer: registry})
	if err != nil {
		return nil, err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("--trust-domain: %w", err)
	}
	if c.store, err = authority.New(authority.Config{
		Client: c.client, Namespace: cfg.Kubernetes.PodNamespace, Authority: certs.AuthorityConfig{TrustDomain: trustDomain, Logger: log.Named("ca")},
		Logger: log.Named("ca"), Registerer: registry,
	}); err != nil {
		return nil, err
	}
	pods := livePods{src}
	// Reviews have a limit of their own, on those under way.
	reviews, err := c.clientset(unlimited)
	if err != nil {
		return nil, err
	}
	authenticator, err := ca.NewReviewAuthenticator(ca.ReviewConfig{Reviews: reviews.AuthenticationV1().TokenReviews(), Pods: pods})
	if err != nil {
		return nil, err
	}
	options := translateOptions(cfg)
	options.Kubernetes = true
	if err := c.newDeploy(options); err != nil {
		return nil, err
	}
	decider := status.Decider{Options: options, Problems: src.Problems}
	if c.deploy != nil {
		decider.Deployed = c.deploy.Outcome
	}
	if c.status, err = c.newStatus(decider); err != nil {
		return nil, err
	}
	return &backend{
		source: src, options: options, authenticator: authenticator, placement: src, pods: pods, complete: true,
		open: c.store.Open, follow: c.follow, observe: c.observe, leading: c.leading, close: func() {},
		describe: []zap.Field{zap.String("api_server", c.rest.Host), zap.String("namespace", cfg.Kubernetes.PodNamespace)},
	}, nil
}

// restConfig finds the API server.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--kubernetes: this process does not run in a pod (%w); name the cluster with --kubeconfig", err)
		}
		return c, nil
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
	}
	return c, nil
}

// clientset returns a client of Kubernetes' own kinds with a rate of requests.
func (c *cluster) clientset(perSecond float32) (kubernetes.Interface, error) {
	config := rest.CopyConfig(c.rest)
	config.QPS, config.Burst = perSecond, int(2*perSecond)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(config)
}

// newStatus returns the writer of conditions, which the leader runs.
func (c *cluster) newStatus(decider status.Decider) (*status.Writer, error) {
	config := rest.CopyConfig(c.rest)
	config.QPS, config.Burst = conditionsPerSecond, 2*conditionsPerSecond
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return status.New(status.Config{Client: client, Decider: decider, Logger: c.log.Named("status"), Registerer: c.registry})
}

// newDeploy makes what deploys waypoints, if it is to.
func (c *cluster) newDeploy(options translate.Options) error {
	if c.cfg.Waypoints.Image == "" {
		return nil
	}
	config := rest.CopyConfig(c.rest)
	config.QPS, config.Burst = writesPerSecond, 2*writesPerSecond
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	metadata, err := metadata.NewForConfig(c.rest)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(c.cfg.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	c.deploy, err = deploy.New(deploy.Config{
		Dynamic: client, Metadata: metadata, Options: options, Changed: func() { c.status.Recheck() },
		Settings: deploy.Settings{
			Waypoints: c.cfg.Waypoints, RootNamespace: c.cfg.RootNamespace,
			XDSAddress: net.JoinHostPort("istiod."+c.cfg.Kubernetes.PodNamespace+".svc", port),
			LogLevel:   c.cfg.LogLevel, LogFormat: c.cfg.LogFormat,
		},
		Logger: c.log.Named("deploy"), Registerer: c.registry,
	})
	return err
}

// leading reports whether this replica leads.
func (c *cluster) leading() bool {
	e := c.election.Load()
	return e != nil && e.Leading()
}

// observe tells of a new state.
func (c *cluster) observe(objects *source.Objects) {
	if c.deploy != nil {
		c.deploy.Observe(objects)
	}
	c.status.Observe(objects)
}

// follow starts what works beside the servers.
func (c *cluster) follow(g *lifecycle.Group, a *certs.Authority) error {
	metadata, err := metadata.NewForConfig(c.rest)
	if err != nil {
		return err
	}
	roots, err := rootcert.New(rootcert.Config{
		Client: c.client, Metadata: metadata, Bundle: a.BundlePEM, Logger: c.log.Named("roots"), Registerer: c.registry,
	})
	if err != nil {
		return err
	}
	// The Lease has a client of its own: a renewal that waits behind other
	// writes would come too late.
	leases, err := c.clientset(unlimited)
	if err != nil {
		return err
	}
	identity := c.cfg.Kubernetes.PodName
	if identity == "" {
		if identity, err = os.Hostname(); err != nil {
			return fmt.Errorf("--pod-name: %w", err)
		}
	}
	election, err := leader.New(leader.Config{
		Client: leases, Namespace: c.cfg.Kubernetes.PodNamespace, Name: leaseName, Identity: identity,
		Logger: c.log.Named("leader"), Registerer: c.registry,
	})
	if err != nil {
		return err
	}
	c.election.Store(election)
	g.Go("authority", c.store.Run)
	g.Go("leader", func(ctx context.Context) error {
		return election.Run(ctx, func(ctx context.Context) {
			var wg sync.WaitGroup
			wg.Go(func() { roots.Run(ctx) })
			wg.Go(func() { c.status.Run(ctx) })
			if c.deploy != nil {
				wg.Go(func() { c.deploy.Run(ctx) })
			}
			wg.Wait()
		})
	})
	return nil
}

// livePods are the pods of the newest state, published or not.
type livePods struct{ source *kube.Source }

// Pod implements ca.Pods.
func (p livePods) Pod(namespace, name string) (ca.Pod, bool) {
	pod := p.source.Pod(source.Name{Namespace: namespace, Name: name})
	if pod == nil || source.Ended(pod) {
		return ca.Pod{}, false
	}
	return ca.Pod{UID: string(pod.UID), ServiceAccount: source.ServiceAccountOf(pod), Node: pod.Spec.NodeName}, true
}
