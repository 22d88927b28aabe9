package app_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tulle-mesh/tulle/ztunnel/agent/app"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cniconf"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
	"github.com/tulle-mesh/tulle/ztunnel/agent/podtest"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// cleaning is what "tulle-agent clean" gets, for a node that consists of one pod:
// the machine's processes are not its business here.
func (n *node) cleaning(pod podtest.World) app.Config {
	n.t.Helper()
	k := &app.KubernetesConfig{
		ConfDir: n.t.TempDir(), BinDir: n.t.TempDir(), Proc: n.t.TempDir(), Netns: n.t.TempDir(),
	}
	for path, content := range map[string]string{
		filepath.Join(k.ConfDir, cniconf.FileName): "{}", filepath.Join(k.ConfDir, "10-kp.conflist"): "{}",
		filepath.Join(k.BinDir, "tulle-cni"): "x", filepath.Join(k.BinDir, "bridge"): "x",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", pod.Pod.FD()), filepath.Join(k.Netns, "cni-1")); err != nil {
		n.t.Fatal(err)
	}
	cfg := n.cfg
	cfg.Clean, cfg.Kubernetes = true, k
	return cfg
}

func TestCleanTakesTheNodeOutOfTheMesh(t *testing.T) {
	w := traffic(t)
	n := newNode(t)
	n.startAgent()
	n.startProxy()
	n.enrol(w.Pod)
	cfg := n.cleaning(w)
	if err := app.Run(t.Context(), cfg); !errors.Is(err, enrol.ErrLocked) {
		t.Errorf("clean beside an agent: %v", err)
	}
	expect(t, w, "refused", "outbound", "inbound")
	n.stopProxy()
	n.stopAgent()
	expect(t, w, "agent gone", "refused", "refused")
	for range 2 {
		if err := app.Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		expect(t, w, "clean", "server", "app")
	}
	if present, err := redirect.Present(w.Pod); err != nil || present {
		t.Errorf("rules stay: %v, %v", present, err)
	}
	for _, gone := range []string{
		filepath.Join(cfg.Kubernetes.ConfDir, cniconf.FileName), filepath.Join(cfg.Kubernetes.BinDir, "tulle-cni"), cfg.StateDir,
	} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays: %v", gone, err)
		}
	}
	for _, stays := range []string{filepath.Join(cfg.Kubernetes.ConfDir, "10-kp.conflist"), filepath.Join(cfg.Kubernetes.BinDir, "bridge")} {
		if _, err := os.Stat(stays); err != nil {
			t.Errorf("what belongs to others: %v", err)
		}
	}
}
