package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/e2e/cluster/daemon"
	"github.com/tulle-mesh/tulle/e2e/cluster/machine"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// Config is where a cluster lives. The zero value is right for all but Binaries.
type Config struct {
	// State is the directory of everything that the cluster writes; "" is
	// DefaultState. It holds the nodes' disks, so it must be on a file system that
	// can be the upper layer of an overlay (ext4, xfs, tmpfs; not overlayfs).
	State string
	// Binaries is the directory of the cluster's programs, as package binaries lays it out.
	Binaries string
	// Self is this program, which also is the first process of each node; "" is the running one.
	Self string
	// Output takes the progress, one line per step; nil is silence.
	Output io.Writer
}

// Cluster is a handle; the cluster itself is what the state directory tells.
type Cluster struct {
	config Config
	state  string
	begun  time.Time
	// mu guards Output, which nodes write to at the same time.
	mu sync.Mutex
}

// DefaultState is the state directory of the user: outside any checkout.
func DefaultState() string {
	if dir := os.Getenv("TULLE_CLUSTER_STATE"); dir != "" {
		return dir
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "tulle", "cluster")
}

// New makes a handle.
func New(c Config) *Cluster {
	if c.State == "" {
		c.State = DefaultState()
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	return &Cluster{config: c, state: c.State, begun: time.Now()}
}

// record is what the state directory tells about a running cluster.
type record struct {
	Topology topology.Topology `json:"topology"`
	// Binaries is the directory that the cluster was started from, resolved.
	Binaries string `json:"binaries"`
	// Processes are the control plane's by name, and the nodes' first by the node's name.
	Processes map[string]daemon.Process `json:"processes"`
	// Endpoint is the API server's address on the host's loopback.
	Endpoint string `json:"endpoint"`
}

// ErrDown is returned by what needs a running cluster.
var ErrDown = errors.New("no cluster is up; start one with `make cluster-up`")

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.state}, elem...)...)
}

func (c *Cluster) nodeDir(name string) string { return c.path(name) }

func (c *Cluster) load() (*record, error) {
	b, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrDown
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path("cluster.json"), err)
	}
	return r, nil
}

func (c *Cluster) save(r *record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	tmp := c.path("cluster.json.new")
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, c.path("cluster.json"))
}

// lock keeps other processes from starting and ending parts of the cluster meanwhile.
func (c *Cluster) lock() (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the cluster needs root: it makes namespaces, mounts and cgroups; run it with sudo")
	}
	for _, dir := range []string{"/run/", "/var/run/", "/proc/", "/sys/"} {
		if strings.HasPrefix(c.state+"/", dir) {
			return nil, fmt.Errorf("state directory %s: a node has its own %s; choose another place with --state-dir", c.state, dir)
		}
	}
	if !filepath.IsAbs(c.state) {
		return nil, fmt.Errorf("state directory %s: must be an absolute path", c.state)
	}
	if err := os.MkdirAll(filepath.Dir(c.state), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.state+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWithin); ; time.Sleep(pollEvery) {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("another command is changing the cluster (%s.lock is held); try again when it is done", c.state)
		}
	}
}

// step prints a line of progress with the time since the beginning.
func (c *Cluster) step(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.config.Output, "%7.1f s  %s\n", time.Since(c.begun).Seconds(), fmt.Sprintf(format, args...))
}

// Kubeconfig is the file of the cluster's administrator, for use on the host.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// Logs is the directory of the control plane's logs; a node's are in NODE/log.
func (c *Cluster) Logs() string { return c.path("log") }

// Topology returns the shape of the running cluster.
func (c *Cluster) Topology() (topology.Topology, error) {
	r, err := c.load()
	if err != nil {
		return topology.Topology{}, err
	}
	return r.Topology, nil
}

func (c *Cluster) control(node string) machine.Control { return machine.NewControl(c.nodeDir(node)) }
