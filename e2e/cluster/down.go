package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// Down ends the cluster and removes everything of it: processes, namespaces,
// cgroups and the state directory. It is no error when none is up. keepLogs, if
// not "", is where the logs are copied first.
func (c *Cluster) Down(ctx context.Context, keepLogs string) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if keepLogs != "" {
		if err := c.CopyLogs(keepLogs); err != nil {
			return err
		}
		c.step("logs kept in %s", keepLogs)
	}
	if err := c.teardown(ctx); err != nil {
		return err
	}
	c.step("cluster is down")
	return nil
}

func (c *Cluster) teardown(ctx context.Context) error {
	var errs []error
	if r, err := c.load(); err == nil {
		// The nodes first, so that nobody tries to reach a control plane that is gone;
		// killed all before any is waited for.
		for _, n := range r.Topology.All() {
			errs = append(errs, r.Processes[n.Name].Signal(unix.SIGKILL))
		}
		for _, n := range r.Topology.All() {
			errs = append(errs, r.Processes[n.Name].Kill())
		}
		for _, name := range slices.Backward(controlPlane) {
			errs = append(errs, r.Processes[name].Stop(controlPlaneGrace))
		}
	}
	// Whatever still runs in the cluster's networks is of it, recorded or not.
	errs = append(errs, killInhabitants())
	names, err := ourNetns()
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, removeNetns(name))
	}
	errs = append(errs, removeCgroups(ctx, ""))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(c.state)
}

// killInhabitants ends every process that is in one of the cluster's network namespaces.
func killInhabitants() error {
	names, err := ourNetns()
	if err != nil {
		return err
	}
	type id struct{ dev, ino uint64 }
	ours := map[id]bool{}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(netnsDir, name), &st); err == nil {
			ours[id{uint64(st.Dev), st.Ino}] = true
		}
	}
	if len(ours) == 0 {
		return nil
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		found := 0
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil || !ours[id{uint64(st.Dev), st.Ino}] {
				continue
			}
			if p, err := daemon.Find(pid); err == nil {
				found++
				_ = p.Signal(unix.SIGKILL)
			}
		}
		if found == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in the cluster's networks do not end", found)
		}
		time.Sleep(pollEvery)
	}
}

// CopyLogs copies the logs of the control plane, the nodes and the pods into dir.
func (c *Cluster) CopyLogs(dir string) error {
	r, err := c.load()
	if errors.Is(err, ErrDown) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	errs := []error{copyTree(filepath.Join(dir, "control-plane"), c.Logs())}
	for _, n := range r.Topology.All() {
		errs = append(errs, copyTree(filepath.Join(dir, n.Name), filepath.Join(c.nodeDir(n.Name), "log")))
	}
	return errors.Join(errs...)
}

// copyTree copies the regular files: the links among the pods' logs point to each other.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // A log that vanishes meanwhile is not kept.
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // See above.
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

// Status is what runs of the cluster.
type Status struct {
	Topology   topology.Topology `json:"topology"`
	Kubeconfig string            `json:"kubeconfig"`
	Endpoint   string            `json:"endpoint"`
	// ControlPlane tells of each process whether it runs.
	ControlPlane map[string]bool `json:"controlPlane"`
	Nodes        []NodeStatus    `json:"nodes"`
}

// NodeStatus is one node seen from the host.
type NodeStatus struct {
	Name string `json:"name"`
	// PID is of the first process, on the host; 0 is a stopped node.
	PID int `json:"pid"`
	// Services are process ids within the node; 0 is a stopped service.
	Services map[string]int `json:"services,omitempty"`
	// Ready is what Kubernetes says.
	Ready bool `json:"ready"`
}

// Status looks at the cluster.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	r, err := c.load()
	if err != nil {
		return Status{}, err
	}
	s := Status{Topology: r.Topology, Kubeconfig: c.Kubeconfig(), Endpoint: r.Endpoint, ControlPlane: map[string]bool{}}
	for _, name := range controlPlane {
		s.ControlPlane[name] = r.Processes[name].Alive()
	}
	ready, readyErr := c.readyNodes(ctx, r.Binaries)
	for _, n := range r.Topology.All() {
		ns := NodeStatus{Name: n.Name, Ready: ready[n.Name]}
		if p := r.Processes[n.Name]; p.Alive() {
			ns.PID = p.PID
			ns.Services, _ = c.control(n.Name).Services(ctx)
		}
		s.Nodes = append(s.Nodes, ns)
	}
	return s, readyErr
}
