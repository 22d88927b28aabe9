package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// programs are what a node needs of the host, with the Debian packages that have them.
var programs = []struct{ name, pkg string }{
	{"runc", "runc"}, {"nft", "nftables"}, {"iptables", "iptables"}, {"conntrack", "conntrack"}, {"nsenter", "util-linux"},
	{"mount", "mount"}, {"ip", "iproute2"}, {"ethtool", "ethtool"},
}

// Up starts a cluster of shape t and returns when its nodes are ready and its DNS
// answers. When it fails, what was started is left for inspection until Down.
func (c *Cluster) Up(ctx context.Context, t topology.Topology, images []string) error {
	if err := t.Validate(); err != nil {
		return err
	}
	if err := checkPrograms(); err != nil {
		return err
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if r, err := c.load(); err == nil {
		if r.Processes[apiServer].Alive() {
			return fmt.Errorf("a cluster is up already (%s); end it with `make cluster-down`", c.Kubeconfig())
		}
	} else if !errors.Is(err, ErrDown) {
		return err
	}
	// What is left of a cluster that was not ended properly, and nothing else when there is none.
	if err := c.teardown(ctx); err != nil {
		return fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	if err := c.up(ctx, t, images); err != nil {
		return fmt.Errorf("%w; logs are in %s and %s", err, c.Logs(), c.path("NODE", "log"))
	}
	return nil
}

func (c *Cluster) up(ctx context.Context, t topology.Topology, images []string) error {
	binaries, err := filepath.EvalSymlinks(c.config.Binaries)
	if err != nil {
		return err
	}
	base, err := c.writeBaseImages(binaries)
	if err != nil {
		return err
	}
	if err := c.installSelf(); err != nil {
		return err
	}
	front, err := listenFront()
	if err != nil {
		return err
	}
	defer front.Close()
	r := &record{Topology: t, Binaries: binaries, Processes: map[string]daemon.Process{}, Endpoint: front.Addr().String()}
	if err := c.makePKI(t, r.Endpoint); err != nil {
		return err
	}
	if err := makeLAN(t); err != nil {
		return err
	}
	// Saved before each step that starts something, for whoever has to take it down.
	err = errors.Join(c.startProcesses(r, etcd, apiServer), c.startForwarder(r, front))
	if err := errors.Join(err, c.save(r)); err != nil {
		return err
	}
	for _, n := range t.All() {
		if err := c.prepareNode(r, n, base); err != nil {
			return err
		}
		p, err := c.bootNode(ctx, r, n)
		r.Processes[n.Name] = p
		if err := errors.Join(err, c.save(r)); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	c.step("processes started")
	if err := c.awaitAPIServer(ctx, r.Endpoint); err != nil {
		return err
	}
	c.step("API server ready on https://%s", r.Endpoint)
	err = c.startProcesses(r, controllerManager, scheduler)
	if err := errors.Join(err, c.save(r)); err != nil {
		return err
	}
	if err := c.awaitNodes(ctx, r); err != nil {
		return err
	}
	c.step("%d nodes ready", t.Nodes)
	loaded := make(chan error, 1)
	go func() { loaded <- c.LoadImages(ctx, images) }()
	err = c.installDNS(ctx, r)
	if err == nil {
		c.step("DNS ready")
	}
	if err := errors.Join(err, <-loaded); err != nil {
		return err
	}
	if len(images) > 0 {
		c.step("%d images loaded into each node", len(images))
	}
	return nil
}

func checkPrograms() error {
	var missing []string
	for _, p := range programs {
		if _, err := lookProgram(p.name); err != nil {
			missing = append(missing, fmt.Sprintf("%s (Debian package %s)", p.name, p.pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the nodes need programs that are not installed: %s", strings.Join(missing, ", "))
	}
	return nil
}

// lookProgram also looks where daemons live, which a user's PATH may lack.
func lookProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// installSelf copies this program into the state directory, where nodes start it:
// `go run` removes its own when it ends.
func (c *Cluster) installSelf() error {
	self := c.config.Self
	if self == "" {
		self = "/proc/self/exe"
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := os.MkdirAll(c.path("bin"), 0o755); err != nil {
		return err
	}
	to, err := os.OpenFile(c.path("bin", "cluster"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// awaitNodes blocks until every node has booted and is ready, and completes the
// node objects with what a node may not say of itself.
func (c *Cluster) awaitNodes(ctx context.Context, r *record) error {
	boot, cancelBoot := context.WithTimeout(ctx, bootWithin)
	defer cancelBoot()
	for _, n := range r.Topology.All() {
		if err := c.control(n.Name).AwaitBoot(boot); err != nil {
			return fmt.Errorf("node %s did not boot: %w", n.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, nodesWithin)
	defer cancel()
	var patched = map[string]bool{}
	return poll(ctx, "not all nodes are ready", func() error {
		ready, err := c.readyNodes(ctx, r.Binaries)
		if err != nil {
			return err
		}
		var waiting []string
		for _, n := range r.Topology.All() {
			isReady, exists := ready[n.Name]
			if exists && !patched[n.Name] {
				if err := c.patchNode(ctx, r, n); err != nil {
					return err
				}
				patched[n.Name] = true
			}
			if !isReady {
				waiting = append(waiting, n.Name)
			}
		}
		if len(waiting) > 0 {
			return fmt.Errorf("waiting for %s", strings.Join(waiting, ", "))
		}
		return nil
	})
}

// readyNodes tells of each node that is registered whether it is ready.
func (c *Cluster) readyNodes(ctx context.Context, binaries string) (map[string]bool, error) {
	out, err := c.kubectl(ctx, binaries, "", "get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	ready := map[string]bool{}
	for _, n := range list.Items {
		ready[n.Metadata.Name] = false
		for _, cond := range n.Status.Conditions {
			if cond.Type == "Ready" && cond.Status == "True" {
				ready[n.Metadata.Name] = true
			}
		}
	}
	return ready, nil
}

func (c *Cluster) patchNode(ctx context.Context, r *record, n topology.Node) error {
	cidrs := r.Topology.PodCIDRs(n)
	labels := map[string]string{}
	if n.ControlPlane {
		labels["node-role.kubernetes.io/control-plane"] = ""
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"labels": labels}, "spec": map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs},
	})
	if err != nil {
		return err
	}
	_, err = c.kubectl(ctx, r.Binaries, "", "patch", "node", n.Name, "--type=merge", "-p", string(patch))
	return err
}

func (c *Cluster) installDNS(ctx context.Context, r *record) error {
	ctx, cancel := context.WithTimeout(ctx, dnsWithin)
	defer cancel()
	manifest, err := render("coredns.yaml", map[string]any{
		"Domain": topology.ClusterDomain, "DNS": topology.DNSServiceIP, "Image": CoreDNSImage, "Replicas": min(2, r.Topology.Nodes),
	})
	if err != nil {
		return err
	}
	// The API server makes kube-system itself, a moment after it is ready.
	if err := poll(ctx, "cannot install the DNS", func() error {
		_, err := c.kubectl(ctx, r.Binaries, string(manifest), "apply", "-f", "-")
		return err
	}); err != nil {
		return err
	}
	_, err = c.kubectl(ctx, r.Binaries, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+dnsWithin.String())
	return err
}
