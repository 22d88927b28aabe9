package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// tryUp is up with a further file, which is removed again, for objects that may be refused.
func (m *mesh) tryUp(t *testing.T, name, objects string) (string, error) {
	t.Helper()
	path := filepath.Join(m.conf, name)
	if err := os.WriteFile(path, []byte(objects), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	return m.converge()
}

// component is one process as meshctl local status tells of it.
type component struct {
	Name, State string
	HostPID     int `json:"hostPID"`
}

func (m *mesh) component(t *testing.T, name, node string) (component, error) {
	t.Helper()
	out, err := m.meshctl(t.Context(), "status", "-o", "json")
	if err != nil {
		t.Fatalf("meshctl local status: %v\n%s", err, out)
	}
	var status struct {
		ControlPlane component
		Nodes        []struct {
			Name       string
			Components []component
		}
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("%v in:\n%s", err, out)
	}
	if name == status.ControlPlane.Name {
		return status.ControlPlane, nil
	}
	for _, n := range status.Nodes {
		for _, c := range n.Components {
			if c.Name == name && n.Name == node {
				return c, nil
			}
		}
	}
	return component{}, fmt.Errorf("no %s on %q in:\n%s", name, node, out)
}

// kill ends a component without warning and waits until another runs in its place.
func (m *mesh) kill(t *testing.T, name, node string) {
	t.Helper()
	before, err := m.component(t, name, node)
	if err != nil || before.HostPID == 0 {
		t.Fatalf("%+v %v", before, err)
	}
	if err := syscall.Kill(before.HostPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, name+" comes back", func() error {
		c, err := m.component(t, name, node)
		if err == nil && (c.HostPID == before.HostPID || c.State != "ready") {
			err = errors.New("not yet")
		}
		return err
	})
}

// load opens connection after connection until stopped.
type load struct {
	passed, failed atomic.Int64
	stop           func()
}

func (m *mesh) load(t *testing.T, marker string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l, done := &load{}, make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if out, err := m.peer(context.Background(), client, "echo", peerService+":7000", marker); err == nil && out == marker {
				l.passed.Add(1)
			} else {
				l.failed.Add(1)
			}
		}
	}()
	l.stop = func() { cancel(); <-done }
	t.Cleanup(l.stop)
	return l
}

// recovers waits until a connection passes that began after now.
func (l *load) recovers(t *testing.T) {
	t.Helper()
	before := l.passed.Load()
	eventually(t, "a new connection passes", func() error {
		if l.passed.Load() < before+2 {
			return errors.New("none passed")
		}
		return nil
	})
}

func TestComponentsAreKilledWithoutPlaintextAndRecover(t *testing.T) {
	m := start(t)
	const marker = "never-in-the-clear-9b42"
	seen := m.capture(t, "node-1", marker)
	l := m.load(t, marker)
	l.recovers(t)
	for _, victim := range []struct{ name, node string }{
		{"ztunnel", "node-1"}, {"ztunnel", "node-2"}, {"agent", "node-1"}, {"agent", "node-2"},
	} {
		m.kill(t, victim.name, victim.node)
		l.recovers(t)
	}
	l.stop()
	s := seen()
	t.Logf("connections passed %d, refused or cut %d; capture %+v", l.passed.Load(), l.failed.Load(), s)
	if s.Marked != 0 {
		t.Errorf("%d packets held the marker in the clear", s.Marked)
	}
	if s.Ports["15008"] == 0 {
		t.Error("the capture saw no tunnel")
	}
}

func TestControlPlaneIsKilledAndTrafficGoesOn(t *testing.T) {
	m := start(t)
	held := m.background(t, client, "--", m.bin+"/peer", "hold", peerService+":7000")
	if line := held.line(t); line != "open" {
		t.Fatalf("hold printed %q", line)
	}
	l := m.load(t, "while the control plane is away")
	l.recovers(t)
	m.kill(t, "istiod-lite", "")
	l.recovers(t)
	l.stop()
	if failed := l.failed.Load(); failed != 0 {
		t.Errorf("%d connections failed while istiod-lite was away", failed)
	}
	select {
	case line := <-held.lines:
		t.Errorf("a live connection ended: %s", line)
	default:
	}
	// What it serves after the restart takes effect.
	m.apply(t, "deny.yaml", denyClient)
	if line := held.line(t); line != "reset" {
		t.Errorf("the denied connection ended: %s", line)
	}
}

func TestAFrozenZtunnelPassesNothing(t *testing.T) {
	m := start(t)
	c, err := m.component(t, "ztunnel", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	// Stopped, not killed: nobody restarts it, and its listeners stay. Connections
	// wait, and none may pass in the clear.
	const marker = "never-in-the-clear-77aa"
	seen := m.capture(t, "node-1", marker)
	if err := syscall.Kill(c.HostPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	out, err := m.peer(ctx, client, "echo", peerService+":7000", marker)
	cancel()
	if contErr := syscall.Kill(c.HostPID, syscall.SIGCONT); contErr != nil {
		t.Fatal(contErr)
	}
	if err == nil {
		t.Errorf("a connection passed without ztunnel: %q", out)
	}
	if s := seen(); s.Marked != 0 {
		t.Errorf("%d packets held the marker in the clear", s.Marked)
	}
	m.want(t, client, "again", "echo", peerService+":7000", "again")
}
