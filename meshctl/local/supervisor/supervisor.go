package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
	"github.com/tulle-mesh/tulle/meshctl/local/control"
	"github.com/tulle-mesh/tulle/meshctl/local/manifest"
	"github.com/tulle-mesh/tulle/meshctl/local/network"
	"github.com/tulle-mesh/tulle/meshctl/local/plan"
	"github.com/tulle-mesh/tulle/meshctl/local/process"
)

// Supervisor runs one local mesh.
type Supervisor struct {
	settings control.Settings
	dir      control.StateDir
	log      *zap.Logger
	started  time.Time
	reaper   *process.Reaper
	tokens   *tokens

	// home is the supervisor's own network namespace: the link between the
	// nodes, where the control plane lives.
	home         *netns.NS
	nodes        []*node
	controlPlane *component

	// applying is held while objects are being applied: one at a time.
	applying sync.Mutex

	// mu guards what follows.
	mu       sync.Mutex
	set      *manifest.Set
	plan     *plan.Plan
	pods     map[plan.PodKey]*pod
	stopping bool

	// changed wakes the goroutine that writes config, hosts files and service
	// rules. syncWanted counts the calls for it, syncWritten is how far it has
	// come, configWritten when it last wrote config (Unix nanoseconds).
	changed                 chan struct{}
	syncWanted, syncWritten atomic.Uint64
	configWritten           atomic.Int64

	ending  context.CancelFunc
	running sync.WaitGroup
}

// node is one node with what runs on it.
type node struct {
	plan.Node
	net     *network.Node
	ztunnel *component
	agent   *component
	api     *agentClient
}

// Run runs a mesh until ctx ends or somebody asks it to stop. ready is called
// once, when the sockets answer.
func Run(ctx context.Context, settings control.Settings, log *zap.Logger, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &Supervisor{
		settings: settings,
		dir:      control.StateDir(settings.StateDir),
		log:      log,
		started:  time.Now(),
		pods:     map[plan.PodKey]*pod{},
		changed:  make(chan struct{}, 1),
		ending:   cancel,
	}
	lock, err := takeLock(s.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.prepareState(); err != nil {
		return err
	}
	if err := prepareMounts(s.dir); err != nil {
		return err
	}
	if err := s.wire(); err != nil {
		return err
	}
	raiseFileLimit()
	s.reaper = process.NewReaper()
	defer s.reaper.Close()

	if err := s.startComponents(ctx); err != nil {
		return err
	}
	s.goUntil(ctx, s.syncLoop)
	s.goUntil(ctx, s.trimLogs)
	if err := s.serve(ctx, ready); err != nil {
		cancel()
		s.stopAll(func(string) {})
		return err
	}
	<-ctx.Done()
	s.stopAll(func(string) {})
	s.running.Wait()
	return nil
}

// raiseFileLimit lets everything that is started open as many files as the
// system allows, as container runtimes do: each connection is one. Go hands on
// the limit that it was started with, unless it was set by hand.
func raiseFileLimit() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

// goUntil runs f until ctx ends; Run waits for it.
func (s *Supervisor) goUntil(ctx context.Context, f func(context.Context)) {
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		f(ctx)
	}()
}

// takeLock makes sure that there is one supervisor for one folder.
func takeLock(dir control.StateDir) (*os.File, error) {
	f, err := os.OpenFile(dir.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another supervisor runs for %s", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir.Lock(), err)
	}
	return f, nil
}

// prepareState removes what a killed predecessor left that is not true any
// more. The authority stays: identities outlive a supervisor.
func (s *Supervisor) prepareState() error {
	for _, stale := range []string{s.dir.Config(), s.dir.Pods(), s.dir.Node(""), s.dir.Control(), s.dir.Exec()} {
		if err := os.RemoveAll(stale); err != nil {
			return err
		}
	}
	for _, d := range []string{s.dir.Config(), s.dir.Pods(), s.dir.Node(""), s.dir.Logs(), s.dir.Keys(), s.dir.Authority()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// wire makes the link between the nodes and the nodes' namespaces.
func (s *Supervisor) wire() error {
	home, err := netns.Current()
	if err != nil {
		return err
	}
	s.home = home
	v4, v6 := plan.ControlPlanePrefixes()
	lan, err := network.NewLan(home, v4, v6)
	if err != nil {
		return err
	}
	var all []*network.Node
	for _, p := range plan.Nodes(s.settings.Nodes) {
		n, err := lan.AddNode(network.NodeConfig{Name: p.Name, Lan4: p.Lan4, Lan6: p.Lan6,
			Pods4: p.Pods4, Pods6: p.Pods6, Gateway4: p.Gateway4, Gateway6: p.Gateway6})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(s.dir.Node(p.Name), 0o700); err != nil {
			return err
		}
		s.nodes = append(s.nodes, &node{Node: p, net: n})
		all = append(all, n)
	}
	return lan.Connect(all)
}

func (s *Supervisor) node(name string) *node {
	for _, n := range s.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// stopAll ends pods first and components after them, so that pods' last words
// still go through the mesh.
func (s *Supervisor) stopAll(progress func(string)) {
	s.mu.Lock()
	s.stopping = true
	pods := make([]*pod, 0, len(s.pods))
	for _, p := range s.pods {
		pods = append(pods, p)
	}
	s.pods = map[plan.PodKey]*pod{}
	s.mu.Unlock()
	if len(pods) > 0 {
		progress(fmt.Sprintf("stopping %d pods", len(pods)))
	}
	var all sync.WaitGroup
	for _, p := range pods {
		all.Go(func() { p.stop(false) })
	}
	all.Wait()
	if s.controlPlane != nil {
		progress("stopping the mesh")
	}
	for _, n := range s.nodes {
		for _, c := range []*component{n.ztunnel, n.agent} {
			if c != nil {
				all.Go(c.stop)
			}
		}
	}
	all.Wait()
	if s.controlPlane != nil {
		s.controlPlane.stop()
	}
}

// openLog opens a log for appending, as the standard output of a process.
func (s *Supervisor) openLog(names ...string) (*os.File, error) {
	path := s.dir.Log(names...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// trimLogs keeps log files from filling the disk.
func (s *Supervisor) trimLogs(ctx context.Context) {
	tick := time.NewTicker(logCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		filepath.Walk(s.dir.Logs(), func(path string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() && info.Size() > maxLogBytes {
				if err := os.Truncate(path, 0); err == nil {
					s.log.Info("log cut back", zap.String("file", path), zap.Int64("bytes", info.Size()))
				}
			}
			return nil
		})
	}
}
