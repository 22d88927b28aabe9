package local_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/roottest"
)

// binaries builds the mesh's programs once; removeBinaries ends that.
var (
	binaryDir string
	binaries  = sync.OnceValues(build)
)

func removeBinaries() {
	if binaryDir != "" {
		os.RemoveAll(binaryDir)
	}
}

func build() (string, error) {
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	for _, build := range [][]string{
		{dir + "/", "../../istiod-lite", "../../ztunnel"},
		{dir + "/tulle-agent", "../../ztunnel/agent"},
	} {
		if out, err := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o"}, build...)...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return dir, os.Chmod(dir, 0o755)
}

// newMeshCtl is newCtl with control plane and proxies.
func newMeshCtl(t *testing.T) *ctl {
	t.Helper()
	roottest.Require(t) // before anything is built
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	c := newCtl(t)
	c.bin = dir
	return c
}

const ambient = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}\n"

func (c *ctl) mesh(pod string) string {
	c.t.Helper()
	for _, p := range c.status().Pods {
		if p.Namespace+"/"+p.Name == pod {
			return p.Mesh
		}
	}
	return "no such pod"
}

func TestALabelEnrolsRunningPodsAndItsEndReleasesThem(t *testing.T) {
	c := newMeshCtl(t)
	file := c.file(objects)
	c.up(file)
	before := c.status()
	url := "http://web/"
	for _, step := range []struct {
		files []string
		want  string
	}{{[]string{file, c.file(ambient)}, "in"}, {[]string{file}, "out"}, {[]string{file, c.file(ambient)}, "in"}} {
		c.up(step.files...)
		for i, p := range c.status().Pods {
			if p.Mesh != step.want || p.Containers[0] != before.Pods[i].Containers[0] {
				t.Errorf("pod %s is %q, want %q; process %+v, was %+v", p.Name, p.Mesh, step.want, p.Containers[0], before.Pods[i].Containers[0])
			}
		}
		if got := c.get("client", url); !strings.HasPrefix(got, "web-") {
			t.Errorf("%s the mesh: %q", step.want, got)
		}
	}
	c.eventually("the access log names both identities", func() error {
		log := c.must("logs", "ztunnel")
		if !strings.Contains(log, `src.identity="spiffe://cluster.local/ns/shop/sa/default"`) || !strings.Contains(log, `dst.identity="spiffe://cluster.local/ns/shop/sa/default"`) {
			return fmt.Errorf("log:\n%s", log)
		}
		return nil
	})
	t.Run("cert status", func(t *testing.T) {
		out := c.meshctl("cert", "--state-dir", c.state, "status", "-o", "json")
		var certs []struct {
			Identity, Node, State, Serial string
			LeftSeconds                   int64
			Pods                          []string
		}
		if err := json.Unmarshal([]byte(out), &certs); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		pods := 0
		for _, cert := range certs {
			if cert.Identity != "spiffe://cluster.local/ns/shop/sa/default" || cert.State != "valid" || cert.LeftSeconds < 3600 || cert.Serial == "" {
				t.Errorf("certificate %+v", cert)
			}
			pods += len(cert.Pods)
		}
		if pods != 3 {
			t.Errorf("certificates of %d pods, want 3: %s", pods, out)
		}
		if out := c.meshctl("cert", "--state-dir", c.state, "status"); !strings.Contains(out, "23h5") || !strings.Contains(out, "valid") {
			t.Errorf("table:\n%s", out)
		}
	})
	t.Run("the node proxies tell what they know", func(t *testing.T) {
		for args, want := range map[string]string{
			"ztunnel workloads": "HBONE", "ztunnel services": "web", "ztunnel policies": "no policies there", "ztunnel connections": "",
			"ztunnel certificates": "Intermediate", "ztunnel log --level access:debug": "access:debug", "ztunnel log --reset": "info", "version": "ztunnel",
		} {
			if out := c.meshctl(append(strings.Fields(args), "--state-dir", c.state)...); !strings.Contains(out, want) {
				t.Errorf("meshctl %s:\n%s", args, out)
			}
		}
	})
	t.Run("explain says what happens", func(t *testing.T) {
		var e struct {
			Outcome string
			Ways    []struct {
				ServerIdentity string
				Hop            struct{ Kind string }
			}
			Proxies []struct{ InSync bool }
		}
		out := c.meshctl("explain", "--state-dir", c.state, "client", "web", "-o", "json")
		if err := json.Unmarshal([]byte(out), &e); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if e.Outcome != "allowed" || len(e.Ways) != 2 || e.Ways[0].Hop.Kind != "hbone" || e.Ways[0].ServerIdentity == "" || len(e.Proxies) == 0 || !e.Proxies[0].InSync {
			t.Errorf("%s", out)
		}
	})
	t.Run("check finds nothing wrong", func(t *testing.T) {
		if out := c.meshctl("check", "--state-dir", c.state, "--wait", "20s"); !strings.Contains(out, "√ every ztunnel is in sync") || strings.Contains(out, "×") {
			t.Errorf("check:\n%s", out)
		}
	})
	t.Run("status names what everybody should know", func(t *testing.T) {
		if out := c.must("status"); !strings.Contains(out, "UDP is not captured") || !strings.Contains(out, "cluster.local/ns/shop/sa/default") {
			t.Errorf("status:\n%s", out)
		}
	})
	t.Run("components are started again", func(t *testing.T) {
		st := c.status()
		was := st.Nodes[0].Components[0]
		syscall.Kill(was.HostPID, syscall.SIGKILL)
		c.eventually("ztunnel runs again", func() error {
			if is := c.status().Nodes[0].Components[0]; is.State != "ready" || is.Restarts != was.Restarts+1 || is.HostPID == was.HostPID {
				return fmt.Errorf("ztunnel %+v", is)
			}
			_, err := c.run("exec", "client", "--", c.path, url)
			return err
		})
	})
}

func TestAnOrdinaryUsersPodsAreInTheMesh(t *testing.T) {
	c := newMeshCtl(t)
	c.becomeOrdinary()
	c.up(c.file(objects), c.file(ambient))
	if st := c.status(); !st.Rootless {
		t.Error("the mesh believes to be root's")
	}
	if got := c.mesh("shop/client"); got != "in" {
		t.Errorf("client is %q", got)
	}
	if got := c.get("client", "http://web/"); !strings.HasPrefix(got, "web-") {
		t.Errorf("answer %q", got)
	}
	// One of the two pods is on the client's node, where no tunnel is needed.
	for range 30 {
		c.get("client", "http://web/")
		for _, node := range []string{"node-1", "node-2"} {
			for line := range strings.Lines(c.must("logs", "ztunnel", "--node", node)) {
				if strings.Contains(line, `direction="inbound"`) && strings.Contains(line, ":15008 ") &&
					strings.Contains(line, `src.identity="spiffe://cluster.local/ns/shop/sa/default"`) {
					return
				}
			}
		}
	}
	t.Error("no connection came through a tunnel with the client's identity")
}

func TestANewPodDoesNotStartBeforeItsZtunnelHasIt(t *testing.T) {
	c := newMeshCtl(t)
	// The same programs, but a ztunnel that does nothing.
	bin := shortDir(t)
	for _, name := range []string{"istiod-lite", "tulle-agent"} {
		if err := os.Symlink(filepath.Join(c.bin, name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "ztunnel"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.bin = bin
	out, err := c.run(append(c.upArgs(c.file(objects), c.file(ambient)), "--timeout", "3s")...)
	if err == nil || !strings.Contains(out, "pod shop/client: held until the mesh has it") {
		t.Errorf("up: %v\n%s", err, out)
	}
	for _, p := range c.status().Pods {
		if p.Mesh != "pending" || p.Containers[0].PID != 0 {
			t.Errorf("pod %s is %q and runs as %+v", p.Name, p.Mesh, p.Containers[0])
		}
	}
	// Outside the mesh the same pods may start.
	c.up2(t, c.file(objects))
}

// up2 applies without waiting for components, of which one will never be ready.
func (c *ctl) up2(t *testing.T, file string) {
	t.Helper()
	c.must(append(c.upArgs(file), "--timeout", "0")...)
	c.eventually("pods start", func() error {
		for _, p := range c.status().Pods {
			if !p.Ready || p.Mesh != "out" {
				return fmt.Errorf("pod %+v", p)
			}
		}
		return nil
	})
}

func TestObjectsThatTheControlPlaneRefusesAreReported(t *testing.T) {
	c := newMeshCtl(t)
	file := c.file(objects)
	c.up(file)
	bad := c.file("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {action: DENY, rules: [{to: [{operation: {ports: [\"http\"]}}]}]}\n")
	out, err := c.run(c.upArgs(file, bad)...)
	if err == nil || !strings.Contains(out, "the control plane refuses") || !strings.Contains(out, "AuthorizationPolicy shop/p") {
		t.Errorf("up: %v\n%s", err, out)
	}
	if out := c.must("status"); !strings.Contains(out, "refused by the control plane: AuthorizationPolicy shop/p") {
		t.Errorf("status:\n%s", out)
	}
	c.up(file)
	if out := c.must("status"); strings.Contains(out, "refused") {
		t.Errorf("status after the repair:\n%s", out)
	}
}

func TestMissingProgramsSayHowToGetThem(t *testing.T) {
	c := newMeshCtl(t)
	c.bin = shortDir(t)
	out, err := c.run(c.upArgs(c.file(objects))...)
	if err == nil || !strings.Contains(out, "istiod-lite is missing") || !strings.Contains(out, "make build") {
		t.Errorf("%v: %s", err, out)
	}
}
