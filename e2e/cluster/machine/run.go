package machine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the services, as commands have them.
const (
	Containerd = "containerd"
	Kubelet    = "kubelet"
	KubeProxy  = "kube-proxy"
)

// Bounds of a node's start.
const (
	// containerdWithin bounds containerd's start; it takes a fraction of a second.
	containerdWithin = 30 * time.Second
	// importWithin bounds the import of one image; the largest takes seconds.
	importWithin = 3 * time.Minute
)

// containerdSocket is where the node's containerd listens.
const containerdSocket = "/run/containerd/containerd.sock"

// Run is PID 1 of the node whose configuration is in dir. It returns only with an
// error, or when it is asked to end; the node ends with it.
func Run(dir string) error {
	if os.Getpid() != 1 {
		return errors.New("node: not PID 1 of a process namespace; `cluster up` starts nodes")
	}
	c, err := load(dir)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := mountAll(c); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	n := newNode(c)
	// The socket first: whoever starts the node learns from it what goes wrong.
	socket := filepath.Join(dir, controlSocket)
	_ = os.Remove(socket)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go n.serve(ln)
	go n.boot()
	<-end
	return errors.Join(n.services[Kubelet].stop(), n.services[KubeProxy].stop(), n.services[Containerd].stop())
}

type node struct {
	config   Config
	reaper   *reaper
	env      []string
	services map[string]*service
	// booted is closed when boot has ended, bootErr set before.
	booted  chan struct{}
	bootErr error
}

func newNode(c Config) *node {
	env := []string{"PATH=" + c.ContainerdBin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	n := &node{config: c, reaper: newReaper(), env: env, services: map[string]*service{}, booted: make(chan struct{})}
	add := func(name string, args []string) {
		n.services[name] = newService(n.reaper, name, args, env, filepath.Join(c.Dir, logDir, name+".log"))
	}
	add(Containerd, []string{filepath.Join(c.ContainerdBin, "containerd"), "--config", filepath.Join(c.Dir, containerdFile)})
	add(Kubelet, c.Kubelet)
	add(KubeProxy, c.KubeProxy)
	return n
}

// boot starts the services in order: pods must not be asked for before containerd
// answers and has the images that no registry has.
func (n *node) boot() {
	defer close(n.booted)
	n.bootErr = func() error {
		if err := n.services[Containerd].start(); err != nil {
			return err
		}
		if err := awaitSocket(containerdSocket, containerdWithin); err != nil {
			return err
		}
		if err := n.services[KubeProxy].start(); err != nil {
			return err
		}
		for _, image := range n.config.Images {
			if err := n.importImage(image); err != nil {
				return err
			}
		}
		return n.services[Kubelet].start()
	}()
	if n.bootErr != nil {
		fmt.Fprintln(os.Stderr, "node:", n.bootErr)
	}
}

// importImage loads one OCI archive into containerd, under its own names.
func (n *node) importImage(archive string) error {
	log := filepath.Join(n.config.Dir, logDir, "import.log")
	_, ended, err := n.reaper.start([]string{
		filepath.Join(n.config.ContainerdBin, "ctr"), "-n", "k8s.io", "images", "import", archive,
	}, n.env, log)
	if err != nil {
		return err
	}
	select {
	case status := <-ended:
		if !status.Exited() || status.ExitStatus() != 0 {
			return fmt.Errorf("import %s: %s; see %s", archive, describe(status), log)
		}
		return nil
	case <-time.After(importWithin):
		return fmt.Errorf("import %s: not done within %v; see %s", archive, importWithin, log)
	}
}

func awaitSocket(path string, within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containerd does not answer within %v: %w", within, err)
		}
	}
}
