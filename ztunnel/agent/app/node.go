package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/lifecycle"
	"github.com/tulle-mesh/tulle/internal/readiness"
	"github.com/tulle-mesh/tulle/internal/telemetry"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cniconf"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/hostprobe"
	"github.com/tulle-mesh/tulle/ztunnel/agent/kube"
	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
)

const (
	// releaseTimeout bounds the release of a node. The DaemonSet's grace period is
	// longer.
	releaseTimeout = 40 * time.Second
	// reloadPause is how long runtimes get to read their configuration again before
	// the plugin that the old one names is removed.
	reloadPause = time.Second
)

// node is what an agent has in Kubernetes.
type node struct {
	cfg        Config
	log        *zap.Logger
	controller *kube.Controller
	owner      *kube.Owner
	probes     *hostprobe.Probes
	installer  *cniconf.Installer
	synced     func()
}

func newNode(cfg Config, pods *enrol.Manager, ready *readiness.Ready, log *zap.Logger, registry prometheus.Registerer) (*node, error) {
	k := cfg.Kubernetes
	client, err := kube.Connect(k.Kubeconfig)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("path of the CNI plugin's program: %w", err)
	}
	n := &node{cfg: cfg, log: log}
	if n.probes, err = hostprobe.New(hostprobe.Config{Logger: log.Named("hostprobe"), Registerer: registry}); err != nil {
		return nil, err
	}
	if n.controller, err = kube.New(kube.Config{
		Client: client, Node: k.Node, Exclude: k.Exclude, Pods: pods, Probes: n.probes,
		Finder: sandbox.Finder{Proc: k.Proc, Netns: k.Netns}, Proc: k.Proc, Logger: log.Named("kube"), Registerer: registry,
	}); err != nil {
		return nil, err
	}
	if n.owner, err = kube.NewOwner(client, k.Namespace, k.DaemonSet, log.Named("kube")); err != nil {
		n.controller.Close()
		return nil, err
	}
	n.installer = cniconf.New(cniconf.Config{
		ConfDir: k.ConfDir, BinDir: k.BinDir, Program: program,
		Plugin:    cni.Conf{AgentSocket: cfg.APISocket, ExcludeNamespaces: k.Exclude},
		Installed: ready.Pending("CNI plugin in the chain of " + k.ConfDir),
		Logger:    log.Named("cni"), Registerer: registry,
	})
	n.synced = ready.Pending("pods and namespaces from the Kubernetes API")
	return n, nil
}

// run follows Kubernetes until one of the contexts ends.
func (n *node) run(ctx, base context.Context) error {
	base, cancel := context.WithCancel(base)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	group := lifecycle.NewGroup(base)
	group.Go("kubernetes", n.controller.Run)
	group.Go("owner", n.owner.Run)
	group.Go("probes", n.probes.Run)
	group.Go("cni", func(ctx context.Context) error {
		select {
		case <-n.controller.Synced():
			n.synced()
			return n.installer.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// release takes the node out of the mesh. What fails is logged: the rest must go
// on.
func (n *node) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	n.log.Info("the DaemonSet was deleted; the node leaves the mesh")
	k := n.cfg.Kubernetes
	failed := func(err error) {
		if err != nil {
			n.log.Error("something of the mesh stays on the node; \"tulle-agent clean\" removes it", zap.Error(err))
		}
	}
	failed(cniconf.Remove(k.ConfDir))
	n.controller.Release(ctx)
	failed(hostprobe.Remove(nil))
	time.Sleep(reloadPause)
	failed(cniconf.RemoveProgram(k.BinDir))
}

// status answers what an operator asks: JSON with the chain's state and the
// node's pods.
func (n *node) status(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(struct {
		Node    string           `json:"node"`
		Version string           `json:"version"`
		CNI     cniconf.Status   `json:"cni"`
		Pods    []kube.PodStatus `json:"pods"`
	}{n.cfg.Kubernetes.Node, telemetry.Version, n.installer.Status(), n.controller.Status()})
}

// writableSysctls makes /proc/sys/net writable, which runtimes mount read-only in
// containers that are not privileged: the rules of a pod need one setting there.
// It changes this process's mount namespace only.
func writableSysctls(proc string) error {
	const target = "/proc/sys/net"
	var fs unix.Statfs_t
	if err := unix.Statfs(target, &fs); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	if fs.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	source := filepath.Join(proc, "sys/net")
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over the read-only %s (needs CAP_SYS_ADMIN and no AppArmor profile): %w", source, target, err)
	}
	return nil
}
