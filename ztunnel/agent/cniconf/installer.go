package cniconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
)

// Config makes an Installer. All but Interval, Logger and Registerer are
// required.
type Config struct {
	// ConfDir and BinDir are the runtime's directories, as this process sees them.
	ConfDir, BinDir string
	// Program is the file that becomes the plugin.
	Program string
	// Plugin is the plugin's own configuration.
	Plugin cni.Conf
	// Installed is called once the plugin is first in force.
	Installed func()
	// Interval is the time between two looks without an event. Zero means 10 s.
	Interval time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
}

// Installer keeps the plugin in the node's chain. One goroutine runs it.
type Installer struct {
	cfg     Config
	log     *zap.Logger
	repairs prometheus.Counter

	installed bool
	program   state
	writes    int
	last      time.Time

	mu     sync.Mutex
	status Status
}

// Status says how it stands with the plugin.
type Status struct {
	// OK: new pods of the node pass the plugin.
	OK bool `json:"ok"`
	// File is the configuration that chains it.
	File string `json:"file"`
	// Problem says what is wrong, empty when nothing is.
	Problem string `json:"problem,omitempty"`
}

// Status is safe for concurrent use.
func (i *Installer) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

// say keeps the status and tells whether the problem is a new one.
func (i *Installer) say(err error) (news bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := Status{File: filepath.Join(i.cfg.ConfDir, FileName), OK: err == nil || i.inForce()}
	if err != nil {
		next.Problem = err.Error()
	}
	news = next.Problem != i.status.Problem
	i.status = next
	return news
}

// inForce tells whether what was installed before still works: a file of somebody
// else that is not understood takes nothing away, one that sorts before ours does.
func (i *Installer) inForce() bool {
	if !i.installed {
		return false
	}
	ours, err := first(i.cfg.ConfDir)
	return err == nil && ours && i.program.same(filepath.Join(i.cfg.BinDir, cni.Type))
}

// New makes an Installer.
func New(cfg Config) *Installer {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Interval == 0 {
		cfg.Interval = tick
	}
	i := &Installer{cfg: cfg, log: cfg.Logger, repairs: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tulle_agent_cni_repairs_total",
		Help: "Times that the node's CNI configuration or plugin was written again because it was changed or missing (unstable).",
	})}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(i.repairs)
	}
	return i
}

// Run installs and repairs until ctx ends; what is installed stays. An error is
// one that a repetition would not cure.
func (i *Installer) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch CNI configuration: %w", err)
	}
	defer watcher.Close()
	for _, dir := range []string{i.cfg.ConfDir, i.cfg.BinDir} {
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			// Events were lost; the directory is read again anyway.
			i.log.Warn("watch of the CNI configuration", zap.Error(err))
		case event := <-watcher.Events:
			if !relevant(event) {
				continue
			}
			timer.Reset(quiet)
			continue
		case <-timer.C:
		}
		timer.Reset(i.sync())
	}
}

// relevant leaves out what we write ourselves on the way, and plugins of others.
func relevant(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	if strings.HasSuffix(name, ".tulle-new") || event.Op == fsnotify.Chmod {
		return false
	}
	for _, ext := range extensions {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return name == cni.Type
}

// sync makes the directories what they should be and returns when to look again.
func (i *Installer) sync() time.Duration {
	if pause := time.Until(i.last.Add(repairPause)); i.writes > freeRepairs && pause > 0 {
		return pause
	}
	changed, err := i.install()
	first := err == nil && !i.installed
	i.installed = i.installed || first
	news := i.say(err)
	switch {
	case first:
		i.cfg.Installed()
	case err != nil && news:
		i.log.Warn("CNI configuration is not up to date", zap.String("dir", i.cfg.ConfDir), zap.Error(err))
	}
	now := time.Now()
	if changed {
		i.writes++
		i.last = now
	} else if now.Sub(i.last) > freeRepairs*repairPause {
		i.writes = 0
	}
	return i.cfg.Interval
}

func (i *Installer) install() (changed bool, err error) {
	target := filepath.Join(i.cfg.BinDir, cni.Type)
	if !i.program.same(target) {
		if i.program, changed, err = installProgram(i.cfg.Program, i.cfg.BinDir); err != nil {
			return false, err
		}
		if changed {
			i.wrote("CNI plugin installed", target)
		}
	}
	own := filepath.Join(i.cfg.ConfDir, FileName)
	have, haveErr := read(own)
	path, err := primary(i.cfg.ConfDir)
	if errors.Is(err, errNoPrimary) && haveErr == nil {
		return changed, nil // ours of before stays, see the package's doc
	}
	if err != nil {
		return changed, err
	}
	b, err := read(path)
	if err != nil {
		return changed, fmt.Errorf("%s: %w", path, err)
	}
	want, err := Render(b, strings.HasSuffix(path, ".conflist"), i.cfg.Plugin)
	if err != nil {
		return changed, fmt.Errorf("%s: %w", path, err)
	}
	if haveErr != nil || !bytes.Equal(have, want) {
		if err := replace(own, bytes.NewReader(want), 0o600); err != nil {
			return changed, fmt.Errorf("%s: %w", own, err)
		}
		changed = true
		i.wrote("CNI plugin chained", own, zap.String("after", path))
	}
	if ok, err := first(i.cfg.ConfDir); err == nil && !ok {
		return changed, fmt.Errorf("%s sorts before our %s: the runtime takes that one, and new pods join the mesh only when they run; rename it", path, FileName)
	}
	return changed, nil
}

func (i *Installer) wrote(what, path string, more ...zap.Field) {
	if i.installed {
		i.repairs.Inc()
	}
	i.log.Info(what, append(more, zap.String("path", path))...)
}
