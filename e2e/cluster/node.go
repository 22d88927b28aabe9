package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
	"github.com/tulle-mesh/tulle/e2e/cluster/image"
	"github.com/tulle-mesh/tulle/e2e/cluster/machine"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

//go:embed files
var files embed.FS

// nodeFiles are written into a node's directory from the templates of the same name.
var nodeFiles = []string{"containerd.toml", "kubelet.yaml", "kube-proxy.yaml"}

// prepareNode writes what a node finds on its disk at its first start.
func (c *Cluster) prepareNode(r *record, n topology.Node, images []string) error {
	dir := c.nodeDir(n.Name)
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	cni, err := cniConfig(r.Topology, n)
	if err != nil {
		return err
	}
	write := map[string][]byte{
		"hosts":       fmt.Appendf(nil, "127.0.0.1 localhost\n::1 localhost\n%s %s\n", n.IP, n.Name),
		"resolv.conf": []byte("nameserver 127.0.0.1\n"),
		"machine-id":  []byte(hex.EncodeToString(id) + "\n"),
		filepath.Join("cni-conf", "10-bridge.conflist"): cni,
	}
	for _, f := range nodeFiles {
		b, err := render(f, map[string]any{"PKI": c.path("pki"), "Node": n, "Topology": r.Topology, "Cgroup": topology.Cgroup,
			"DNS": topology.DNSServiceIP, "Domain": topology.ClusterDomain, "PauseImage": PauseImage})
		if err != nil {
			return err
		}
		write[f] = b
	}
	for name, b := range write {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return machine.Config{
		Name: n.Name, Dir: dir, ContainerdBin: filepath.Join(r.Binaries, "containerd"), CNIBin: filepath.Join(r.Binaries, "cni"), Images: images,
		Kubelet: []string{
			filepath.Join(r.Binaries, "kubelet"), "--config=" + filepath.Join(dir, "kubelet.yaml"),
			"--kubeconfig=" + c.path("pki", "kubelet-"+n.Name+".kubeconfig"), "--hostname-override=" + n.Name, "--node-ip=" + r.Topology.NodeIPs(n),
			"--node-labels=topology.kubernetes.io/region=" + topology.Region + ",topology.kubernetes.io/zone=" + n.Zone,
			"--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki", "--v=1",
		},
		KubeProxy: []string{filepath.Join(r.Binaries, "kube-proxy"), "--config=" + filepath.Join(dir, "kube-proxy.yaml"), "--v=1"},
	}.Write()
}

// cniConfig is the node's CNI configuration: a bridge, addresses from the node's ranges, host ports.
func cniConfig(t topology.Topology, n topology.Node) ([]byte, error) {
	ranges := [][]map[string]string{{{"subnet": n.PodCIDR.String()}}}
	if t.DualStack {
		ranges = append(ranges, []map[string]string{{"subnet": n.PodCIDR6.String()}})
	}
	return json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": "bridge", "plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": map[string]any{"type": "host-local", "dataDir": "/var/lib/cni/ipam", "ranges": ranges},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}, "", "  ")
}

func render(name string, data any) ([]byte, error) {
	t, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Option("missingkey=error").Execute(&b, data)
	return b.Bytes(), err
}

// bootNode starts a node whose disk is prepared: a new network, and a first process in new namespaces.
func (c *Cluster) bootNode(ctx context.Context, r *record, n topology.Node) (daemon.Process, error) {
	if err := removeCgroups(ctx, n.Name); err != nil {
		return daemon.Process{}, err
	}
	if err := makeCgroups(n); err != nil {
		return daemon.Process{}, err
	}
	if err := makeNodeNetwork(r.Topology, n); err != nil {
		return daemon.Process{}, err
	}
	ns, err := openNetns(n.Netns)
	if err != nil {
		return daemon.Process{}, err
	}
	defer ns.Close()
	dir := c.nodeDir(n.Name)
	return daemon.Start(daemon.Spec{
		Netns: ns, Path: c.path("bin", "cluster"), Args: []string{"node-init", dir}, Log: filepath.Join(dir, "log", "init.log"),
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
	})
}

// StopNode ends a node as a power failure does: every process of it, at once.
func (c *Cluster) StopNode(name string) error {
	return c.withNode(name, func(r *record, n topology.Node) error {
		return r.Processes[name].Kill()
	})
}

// StartNode starts a stopped node again, with its disk and a fresh network, and
// waits until its services run. When it is ready is up to Kubernetes.
func (c *Cluster) StartNode(ctx context.Context, name string) error {
	return c.withNode(name, func(r *record, n topology.Node) error {
		if r.Processes[name].Alive() {
			return fmt.Errorf("node %s runs; stop it first with `cluster node stop %s`", name, name)
		}
		p, err := c.bootNode(ctx, r, n)
		if err != nil {
			return err
		}
		r.Processes[name] = p
		if err := c.save(r); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, bootWithin)
		defer cancel()
		return c.control(name).AwaitBoot(ctx)
	})
}

// StopService ends a service of a node, such as machine.Kubelet, until StartService.
func (c *Cluster) StopService(ctx context.Context, node, service string) error {
	return c.withNode(node, func(*record, topology.Node) error { return c.control(node).Stop(ctx, service) })
}

// StartService starts a service that StopService ended.
func (c *Cluster) StartService(ctx context.Context, node, service string) error {
	return c.withNode(node, func(*record, topology.Node) error { return c.control(node).Start(ctx, service) })
}

// CutNetwork takes a node off the LAN; RestoreNetwork puts it back.
func (c *Cluster) CutNetwork(name string) error {
	return c.withNode(name, func(_ *record, n topology.Node) error { return plugged(n, false) })
}

// RestoreNetwork puts a node back on the LAN.
func (c *Cluster) RestoreNetwork(name string) error {
	return c.withNode(name, func(_ *record, n topology.Node) error { return plugged(n, true) })
}

func (c *Cluster) withNode(name string, f func(*record, topology.Node) error) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.load()
	if err != nil {
		return err
	}
	n, err := r.Topology.Node(name)
	if err != nil {
		return err
	}
	return f(r, n)
}

// NodePID returns the id, on the host, of a node's first process: its namespaces
// are the node's. It is 0 while the node is stopped.
func (c *Cluster) NodePID(name string) (int, error) {
	r, err := c.load()
	if err != nil {
		return 0, err
	}
	if _, err := r.Topology.Node(name); err != nil {
		return 0, err
	}
	if p := r.Processes[name]; p.Alive() {
		return p.PID, nil
	}
	return 0, nil
}

// NodeCommand returns the command that runs args on a node, as root of its namespaces.
func (c *Cluster) NodeCommand(name string, args ...string) ([]string, error) {
	pid, err := c.NodePID(name)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("node %s is stopped; start it with `cluster node start %s`", name, name)
	}
	return append([]string{"nsenter", "-t", fmt.Sprint(pid), "-m", "-p", "-n", "-u", "-i", "--"}, args...), nil
}

// Images that the cluster itself runs.
const (
	PauseImage   = "tulle.test/pause:1"
	CoreDNSImage = "tulle.test/coredns:1"
)

// writeBaseImages makes the images that a node has before its kubelet starts.
func (c *Cluster) writeBaseImages(binaries string) ([]string, error) {
	var archives []string
	for _, i := range []struct{ name, program string }{{PauseImage, "pause"}, {CoreDNSImage, "coredns"}} {
		f, at := image.NewFiles(), "/"+i.program
		if err := f.Copy(at, filepath.Join(binaries, i.program)); err != nil {
			return nil, err
		}
		archive := c.path("images", i.program+".tar")
		if err := image.Write(archive, image.Spec{Name: i.name, Entrypoint: []string{at}, Files: f}); err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// LoadImages imports OCI archives into every running node, the nodes at the same time.
func (c *Cluster) LoadImages(ctx context.Context, archives []string) error {
	r, err := c.load()
	if err != nil {
		return err
	}
	errs := make(chan error, r.Topology.Nodes)
	for _, n := range r.Topology.All() {
		go func() {
			if !r.Processes[n.Name].Alive() {
				errs <- fmt.Errorf("node %s is stopped, so it gets no images", n.Name)
				return
			}
			for _, a := range archives {
				abs, err := filepath.Abs(a)
				if err == nil {
					err = c.control(n.Name).Import(ctx, abs)
				}
				if err != nil {
					errs <- fmt.Errorf("node %s: %w", n.Name, err)
					return
				}
			}
			errs <- nil
		}()
	}
	var all []error
	for range r.Topology.Nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
