package cniconf_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
	"github.com/tulle-mesh/tulle/ztunnel/agent/cniconf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

var own = cni.Conf{AgentSocket: "/run/agent.sock", ExcludeNamespaces: []string{"kube-system"}}

const bridge = `{"cniVersion":"1.0.0","name":"kp","disableCheck":true,"plugins":[
 {"type":"bridge","bridge":"cni0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`

const single = `{"cniVersion":"0.3.1","name":"one","type":"ptp","mtu":1400}`

// types are the chain that a runtime would run, read by the library that it uses.
func types(t *testing.T, b []byte) []string {
	t.Helper()
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var out []string
	for _, p := range list.Plugins {
		out = append(out, p.Network.Type)
	}
	return out
}

func TestRenderChainsOurPluginLast(t *testing.T) {
	b, err := cniconf.Render([]byte(bridge), true, own)
	if err != nil {
		t.Fatal(err)
	}
	if got := types(t, b); !slices.Equal(got, []string{"bridge", "portmap", "tulle-cni"}) {
		t.Errorf("chain %v", got)
	}
	var before, after map[string]any
	if json.Unmarshal([]byte(bridge), &before) != nil || json.Unmarshal(b, &after) != nil {
		t.Fatal("not JSON")
	}
	plugins := after["plugins"].([]any)
	last := plugins[2].(map[string]any)
	if last["agentSocket"] != "/run/agent.sock" || len(last["excludeNamespaces"].([]any)) != 1 {
		t.Errorf("our plugin: %v", last)
	}
	after["plugins"] = plugins[:2]
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("what belongs to others changed: %s", diff)
	}
	again, err := cniconf.Render(b, true, own)
	if err != nil || string(again) != string(b) {
		t.Errorf("chained twice: %v\n%s", err, again)
	}
}

func TestRenderWrapsASinglePlugin(t *testing.T) {
	b, err := cniconf.Render([]byte(single), false, own)
	if err != nil {
		t.Fatal(err)
	}
	if got := types(t, b); !slices.Equal(got, []string{"ptp", "tulle-cni"}) {
		t.Errorf("chain %v", got)
	}
	if !strings.Contains(string(b), `"mtu": 1400`) || !strings.Contains(string(b), `"name": "one"`) {
		t.Errorf("lost something: %s", b)
	}
}

func TestRenderErrorsSayWhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		``:                                  "unexpected end",
		`{"name":"a","plugins":[]}`:         "cniVersion is missing",
		`{"cniVersion":"1.0.0"}`:            "name is missing",
		`{"cniVersion":"1.0.0","name":1}`:   "name: want a text",
		`{"cniVersion":"0.2.0","name":"a"}`: "0.3.0 or later",
		`{"cniVersion":"1.0.0","name":"a","plugins":[]}`:                      "none to chain after",
		`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"tulle-cni"}]}`:  "none to chain after",
		`{"cniVersion":"1.0.0","name":"a","plugins":[{"bridge":"x"}]}`:        "plugins[0]: type is missing",
		`{"cniVersion":"1.0.0","name":"a","plugins":{"type":"bridge"}}`:       "plugins:",
		`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}, 17]}`: "plugins[1]",
	} {
		if _, err := cniconf.Render([]byte(text), true, own); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	if _, err := cniconf.Render([]byte(bridge), false, own); err == nil || !strings.Contains(err.Error(), "type is missing") {
		t.Errorf("a list in a .conf: %v", err)
	}
	for n := range bridge {
		if _, err := cniconf.Render([]byte(bridge[:n]), true, own); err == nil {
			t.Errorf("%d of %d bytes were taken", n, len(bridge))
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add([]byte(bridge), true)
	f.Add([]byte(single), false)
	f.Fuzz(func(t *testing.T, b []byte, list bool) {
		out, err := cniconf.Render(b, list, own)
		if err != nil {
			return
		}
		if again, err := cniconf.Render(out, true, own); err != nil || string(again) != string(out) {
			t.Errorf("%q became %q, and that %q, %v", b, out, again, err)
		}
	})
}

// host is a node's directories with an Installer at work.
type host struct {
	t              *testing.T
	conf, bin, exe string
	cfg            cniconf.Config
	installed      chan struct{}
	installer      *cniconf.Installer
	stop           func()
}

func newHost(t *testing.T, files map[string]string) *host {
	h := &host{t: t, conf: t.TempDir(), bin: t.TempDir(), exe: filepath.Join(t.TempDir(), "agent"), installed: make(chan struct{})}
	h.write(h.exe, "program")
	for name, content := range files {
		h.write(filepath.Join(h.conf, name), content)
	}
	h.cfg = cniconf.Config{
		ConfDir: h.conf, BinDir: h.bin, Program: h.exe, Plugin: own, Installed: func() { close(h.installed) },
		// Longer than any test's patience: what is repaired, is by the events.
		Interval: time.Hour,
	}
	return h
}

func (h *host) start() {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	h.installer = cniconf.New(h.cfg)
	go func() { done <- h.installer.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
	h.t.Cleanup(h.stop)
	h.t.Cleanup(func() { done <- nil }) // for a second stop
}

func (h *host) write(path, content string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// chain is what a runtime would run now.
func (h *host) chain() []string {
	files, err := libcni.ConfFiles(h.conf, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) == 0 {
		return nil
	}
	list, err := libcni.ConfListFromFile(slices.Min(files))
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range list.Plugins {
		out = append(out, p.Network.Type)
	}
	return out
}

func (h *host) expect(when string, chain ...string) {
	h.t.Helper()
	h.eventually(when, func() bool { return slices.Equal(h.chain(), chain) })
}

func (h *host) eventually(when string, f func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: chain %v", when, h.chain())
		}
	}
}

func TestPluginStaysInTheChain(t *testing.T) {
	h := newHost(t, map[string]string{"10-kp.conflist": bridge, "README": "x"})
	h.start()
	h.expect("start", "bridge", "portmap", "tulle-cni")
	<-h.installed
	if info, err := os.Stat(filepath.Join(h.bin, "tulle-cni")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("plugin: %v, %v", info, err)
	}
	if b, err := os.ReadFile(filepath.Join(h.conf, "10-kp.conflist")); err != nil || string(b) != bridge {
		t.Errorf("the other plugin's file changed: %v %s", err, b)
	}

	// Its installer writes it again, with another chain, not at once but in pieces.
	changed := strings.Replace(bridge, `"portmap"`, `"bandwidth"`, 1)
	h.write(filepath.Join(h.conf, "10-kp.conflist"), changed[:40])
	h.write(filepath.Join(h.conf, "10-kp.conflist"), changed)
	h.expect("written again", "bridge", "bandwidth", "tulle-cni")

	h.write(filepath.Join(h.conf, "05-other.conf"), single)
	h.expect("a new first file", "ptp", "tulle-cni")
	if err := os.Remove(filepath.Join(h.conf, "05-other.conf")); err != nil {
		t.Fatal(err)
	}
	h.expect("and gone", "bridge", "bandwidth", "tulle-cni")

	for _, path := range []string{filepath.Join(h.conf, cniconf.FileName), filepath.Join(h.bin, "tulle-cni")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		h.eventually(path+" is back", func() bool { _, err := os.Stat(path); return err == nil })
	}
	h.expect("ours was removed", "bridge", "bandwidth", "tulle-cni")

	if err := os.Remove(filepath.Join(h.conf, "10-kp.conflist")); err != nil {
		t.Fatal(err)
	}
	h.write(filepath.Join(h.conf, "10-kp.conflist"), bridge)
	h.expect("removed and back", "bridge", "portmap", "tulle-cni")

	h.stop()
	h.expect("stopped", "bridge", "portmap", "tulle-cni")
	for range 2 {
		if err := cniconf.Remove(h.conf); err != nil {
			t.Fatal(err)
		}
		if err := cniconf.RemoveProgram(h.bin); err != nil {
			t.Fatal(err)
		}
	}
	h.expect("removed", "bridge", "portmap")
	if files, _ := os.ReadDir(h.bin); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// A node whose network plugin comes later.
func TestWaitsForTheFirstConfiguration(t *testing.T) {
	h := newHost(t, nil)
	h.start()
	h.eventually("the program is there", func() bool { _, err := os.Stat(filepath.Join(h.bin, "tulle-cni")); return err == nil })
	select {
	case <-h.installed:
		t.Fatal("installed after nobody")
	default:
	}
	h.write(filepath.Join(h.conf, "10-kp.conflist"), bridge)
	h.expect("there", "bridge", "portmap", "tulle-cni")
	<-h.installed
}

// A configuration that nobody understands takes nothing away.
func TestBrokenConfigurationChangesNothing(t *testing.T) {
	h := newHost(t, map[string]string{"10-kp.conflist": bridge})
	h.start()
	h.expect("start", "bridge", "portmap", "tulle-cni")
	h.write(filepath.Join(h.conf, "01-broken.conflist"), "{")
	h.write(filepath.Join(h.conf, "10-kp.conflist"), strings.Replace(bridge, `"portmap"`, `"bandwidth"`, 1))
	if err := os.Remove(filepath.Join(h.bin, "tulle-cni")); err != nil {
		t.Fatal(err)
	}
	h.eventually("it was looked at", func() bool { _, err := os.Stat(filepath.Join(h.bin, "tulle-cni")); return err == nil })
	h.expect("broken first file", "bridge", "portmap", "tulle-cni")
	h.eventually("the status names it, and ours is in force", func() bool {
		s := h.installer.Status()
		return s.OK && strings.Contains(s.Problem, "01-broken.conflist")
	})
	if err := os.Remove(filepath.Join(h.conf, "01-broken.conflist")); err != nil {
		t.Fatal(err)
	}
	h.expect("gone", "bridge", "bandwidth", "tulle-cni")
}

// A file that the runtime takes in place of ours is told of, also long after ours
// was in force.
func TestStatusTellsOfAFileThatSortsBeforeOurs(t *testing.T) {
	h := newHost(t, map[string]string{"10-kp.conflist": bridge})
	h.start()
	<-h.installed
	h.eventually("in force", func() bool { s := h.installer.Status(); return s.OK && s.Problem == "" })
	before := filepath.Join(h.conf, "00-00-a.conflist")
	h.write(before, bridge)
	h.eventually("outranked", func() bool {
		s := h.installer.Status()
		return !s.OK && strings.Contains(s.Problem, "00-00-a.conflist")
	})
	if err := os.Remove(before); err != nil {
		t.Fatal(err)
	}
	h.eventually("in force again", func() bool { s := h.installer.Status(); return s.OK && s.Problem == "" })
}
