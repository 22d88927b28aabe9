package local_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

const objects = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        command: [SELF]
        env: [{name: TEST_ROLE, value: server}, {name: PORT, value: "8080"}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    command: [sleep, infinity]
    env: [{name: TEST_ROLE, value: client}, {name: GREETING, value: hello}]
`

func (c *ctl) status() control.Status {
	c.t.Helper()
	var st control.Status
	if err := json.Unmarshal([]byte(c.must("status", "-o", "json")), &st); err != nil {
		c.t.Fatal(err)
	}
	return st
}

func (c *ctl) get(pod, url string) string {
	c.t.Helper()
	return c.must("exec", pod, "--", c.path, url)
}

func TestUpExecLogsStatusDown(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	out := c.up(file)
	for _, want := range []string{"deployment/web in shop created", "starting pod shop/client on node-", "everything runs"} {
		if !strings.Contains(out, want) {
			t.Errorf("up does not say %q:\n%s", want, out)
		}
	}
	st := c.status()
	if len(st.Pods) != 3 || len(st.Nodes) != 2 || len(st.Services) != 1 || st.Services[0].Ready != 2 {
		t.Fatalf("status %+v", st)
	}
	client := st.Pods[0]
	t.Run("names and both families reach the service from a pod, which keeps its address", func(t *testing.T) {
		for _, name := range []string{"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", st.Services[0].IPs[0], "[" + st.Services[0].IPs[1] + "]"} {
			answer := c.get("client", "http://"+name+"/")
			if !strings.HasPrefix(answer, "web-") || !strings.Contains(answer, client.IPs[0]) && !strings.Contains(answer, client.IPs[1]) {
				t.Errorf("%s: %q", name, answer)
			}
		}
	})
	t.Run("connections are spread over the pods", func(t *testing.T) {
		seen := map[string]bool{}
		for range 30 {
			seen[strings.Fields(c.get("client", "http://web/"))[0]] = true
			if len(seen) == 2 {
				return
			}
		}
		t.Errorf("30 connections reached %v only", seen)
	})
	t.Run("a pod reaches itself through its service", func(t *testing.T) {
		one := c.file(strings.Replace(strings.Replace(objects, "replicas: 2", "replicas: 1", 1), "name: web, namespace: shop}\nspec:\n  selector", "name: self, namespace: shop}\nspec:\n  selector", 1))
		c.up(one)
		c.must("exec", "deploy/web", "--", "env", "TEST_ROLE=client", c.path, "http://self/")
		c.up(file)
	})
	t.Run("exec carries input, status, environment, host name and signals", func(t *testing.T) {
		cmd := c.command("exec", "shop/client", "--", "sh", "-c", "cat; echo $GREETING; hostname; exit 7")
		cmd.Stdin = strings.NewReader("from outside\n")
		out, err := cmd.Output()
		if exitCode(err) != 7 || string(out) != "from outside\nhello\nclient\n" {
			t.Errorf("exit %d, output %q", exitCode(err), out)
		}
		cmd = c.command("exec", "-n", "shop", "client", "--", "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 6)
		stdout.Read(buf)
		cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); exitCode(err) != 5 {
			t.Errorf("after SIGINT: %v", err)
		}
		if out, err := c.run("exec", "client", "--", "no-such-program"); exitCode(err) != 127 || !strings.Contains(out, "no-such-program") {
			t.Errorf("unknown program: %v, %q", err, out)
		}
		if out, err := c.run("exec", "nobody", "--", "true"); exitCode(err) != 1 || !strings.Contains(out, `no pod "nobody"`) {
			t.Errorf("unknown pod: %v, %q", err, out)
		}
		if out := c.must("exec", "--node", "node-2", "--", "hostname"); out != "node-2\n" {
			t.Errorf("on the node: %q", out)
		}
	})
	t.Run("a command whose caller is killed ends", func(t *testing.T) {
		cmd := c.command("exec", "client", "--", "sh", "-c", "echo $$; exec sleep 1000")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 16)
		n, _ := stdout.Read(buf)
		cmd.Process.Kill()
		cmd.Wait()
		inner := strings.TrimSpace(string(buf[:n]))
		c.eventually("the command ends", func() error {
			if out, _ := c.run("exec", "--node", "node-1", "--", "kill", "-0", inner); !strings.Contains(out, "No such process") {
				return fmt.Errorf("process %s: %s", inner, out)
			}
			return nil
		})
	})
	t.Run("logs of pods and of the supervisor", func(t *testing.T) {
		if out := c.must("logs"); !strings.Contains(out, "supervisor\n") || !strings.Contains(out, "shop/client -c c\n") {
			t.Errorf("logs lists %q", out)
		}
		if out := c.must("logs", "supervisor"); !strings.Contains(out, "applied") {
			t.Errorf("supervisor's log: %q", out)
		}
	})
	t.Run("capture sees what goes between the nodes", func(t *testing.T) {
		st := c.status()
		client := st.Pods[0]
		cmd := c.command("capture", "--node", client.Node, "--find", "sees "+client.IPs[0], "-o", "json")
		stdin, _ := cmd.StdinPipe()
		stderr, _ := cmd.StderrPipe()
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stderr.Read(make([]byte, 64)) // "looking at eth0"
		other := st.Pods[1]
		if other.Node == client.Node {
			other = st.Pods[2]
		}
		c.get("client", "http://"+other.IPs[0]+":8080/")
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), `"found": 1`) || !strings.Contains(out.String(), `"port": 8080`) {
			t.Errorf("report %s", out.String())
		}
	})
	if out := c.must("status"); !strings.Contains(out, "shop/client") || !strings.Contains(out, "80/TCP") {
		t.Errorf("status:\n%s", out)
	}
	c.must("down")
	if _, err := os.Stat(c.state); !os.IsNotExist(err) {
		t.Errorf("state folder after down: %v", err)
	}
	if pid := client.Containers[0].HostPID; pid == 0 || syscall.Kill(pid, 0) == nil {
		t.Errorf("process %d after down is still there, or was never known", pid)
	}
}

// eventually repeats f for a while.
func (c *ctl) eventually(what string, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestUpTwiceChangesNothingAndADifferenceChangesThatOnly(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	c.up(file)
	before := c.status()
	if out := c.up(file); out != "nothing to change\n" {
		t.Errorf("second up says %q", out)
	}
	label := c.file("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: fruit}}\n")
	if out := c.up(file, label); !strings.Contains(out, "namespace/shop changed") || strings.Contains(out, "starting") {
		t.Errorf("up with a label says %q", out)
	}
	config := filepath.Join(c.state, "config")
	c.eventually("the label reaches the control plane's folder", func() error {
		data, err := os.ReadFile(filepath.Join(config, "namespace_shop.yaml"))
		if err == nil && !strings.Contains(string(data), "team: fruit") {
			err = fmt.Errorf("namespace is %s", data)
		}
		return err
	})
	for i, p := range c.status().Pods {
		if p.Containers[0] != before.Pods[i].Containers[0] || p.UID != before.Pods[i].UID {
			t.Errorf("pod %s was touched", p.Name)
		}
	}
	// The file lies in a folder of its own again, but it is the same folder for
	// the client, whose spec did not change.
	os.WriteFile(file, []byte(strings.Replace(strings.ReplaceAll(objects, "SELF", c.path), "replicas: 2", "replicas: 1", 1)), 0o644)
	out := c.up(file)
	if !strings.Contains(out, "deployment/web in shop changed") || !strings.Contains(out, "stopping pod shop/web-") || strings.Contains(out, "starting") {
		t.Errorf("up with one replica less says %q", out)
	}
	after := c.status()
	if len(after.Pods) != 2 || after.Pods[0].UID != before.Pods[0].UID {
		t.Errorf("pods after: %+v", after.Pods)
	}
	c.eventually("the pod's object is removed", func() error {
		pods, _ := filepath.Glob(filepath.Join(config, "pod_*"))
		if len(pods) != 2 {
			return fmt.Errorf("objects %v", pods)
		}
		return nil
	})
	if out, err := c.run("up", "--no-mesh", "--nodes", "3", "-f", file); err == nil || !strings.Contains(out, "`meshctl local down` first") {
		t.Errorf("another number of nodes: %v, %q", err, out)
	}
}

// A script that holds a lock while it calls up must not find it held for ever.
func TestTheSupervisorKeepsNothingOpenOfItsCaller(t *testing.T) {
	c := newCtl(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	up := c.command(c.upArgs(c.file(objects))...)
	up.ExtraFiles = []*os.File{write, write, write}
	if out, err := up.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write.Close()
	read.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the caller's pipe is still open: %v", err)
	}
}

func TestAKilledSupervisorLeavesNothing(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	c.up(file)
	st := c.status()
	if st.SupervisorPID == 0 {
		t.Fatal("no supervisor PID")
	}
	if err := syscall.Kill(st.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.eventually("all processes end", func() error {
		for _, p := range st.Pods {
			if pid := p.Containers[0].HostPID; pid == 0 || syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("process %d of pod %s", pid, p.Name)
			}
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.state) {
		t.Errorf("mounts are left: %v", err)
	}
	if out, err := c.run("status"); err == nil || !strings.Contains(out, "no local mesh runs") {
		t.Errorf("status says %q", out)
	}
	c.up(file) // and starts again over what was left
	if got := c.get("client", "http://web/"); !strings.HasPrefix(got, "web-") {
		t.Errorf("after the restart: %q", got)
	}
	syscall.Kill(c.status().SupervisorPID, syscall.SIGKILL)
	c.must("down") // cleans up after a kill too
	if _, err := os.Stat(c.state); !os.IsNotExist(err) {
		t.Errorf("state folder after down: %v", err)
	}
}

func TestContainersAreRestartedAndJobsEnd(t *testing.T) {
	c := newCtl(t)
	out, err := c.run(append(c.upArgs(c.file(`apiVersion: v1
kind: Pod
metadata: {name: flaky}
spec: {containers: [{name: c, command: [sh, -c, "echo going; exit 3"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  restartPolicy: Never
  containers:
  - name: c
    command: [sh, -c]
    args: ["echo $(POD) on '$$(X)' at $NODE"]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
`)), "--timeout", "3s")...)
	if err == nil || !strings.Contains(out, "pod default/flaky: container c: exit status 3") {
		t.Errorf("up of a pod that keeps ending: %v\n%s", err, out)
	}
	st := c.status()
	if st.Pods[0].Containers[0].Restarts == 0 || st.Pods[1].Phase != "Succeeded" {
		t.Errorf("pods %+v", st.Pods)
	}
	if out := c.must("logs", "job"); !strings.HasPrefix(out, "job on $(X) at node-") {
		t.Errorf("job says %q", out)
	}
}

func TestMistakesAreToldBeforeAnythingStarts(t *testing.T) {
	c := newCtl(t)
	out, err := c.run(c.upArgs(c.file(strings.Replace(objects, "readinessProbe", "readynessProbe", 1)))...)
	if err == nil || !strings.Contains(out, "objects.yaml: document 3: Deployment shop/web") || !strings.Contains(out, "readynessProbe") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(c.state); !os.IsNotExist(err) {
		t.Errorf("something was started: %v", err)
	}
	// A mistake in a change leaves everything as it was.
	good := c.file(objects)
	c.up(good)
	before := c.status()
	if out, err := c.run(c.upArgs(good, c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {nodeName: moon, containers: [{name: c, command: [sleep]}]}\n"))...); err == nil || !strings.Contains(out, `no node "moon"`) {
		t.Errorf("%v: %s", err, out)
	}
	if after := c.status(); len(after.Pods) != len(before.Pods) {
		t.Errorf("pods %+v", after.Pods)
	}
}

func TestAPodRunsAsTheUserThatItNames(t *testing.T) {
	c := newCtl(t)
	c.up(c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {securityContext: {runAsUser: 65534}, containers: [{name: c, command: [sleep, infinity]}]}\n"))
	if out := c.must("exec", "p", "--", "id", "-u"); out != "65534\n" {
		t.Errorf("exec as %q", out)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(c.status().Pods[0].Containers[0].HostPID) + "/status")
	if err != nil || !strings.Contains(string(status), "Uid:\t65534\t65534") {
		t.Errorf("%v: %s", err, status)
	}
}

func TestAnOrdinaryUserRunsAMesh(t *testing.T) {
	c := newCtl(t)
	c.becomeOrdinary()
	c.up(c.file(objects))
	st := c.status()
	if !st.Rootless {
		t.Error("the mesh believes to be root's")
	}
	if got := c.get("client", "http://web/"); !strings.HasPrefix(got, "web-") {
		t.Errorf("answer %q", got)
	}
	if out, err := c.run(c.upArgs(c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {securityContext: {runAsUser: 1}, containers: [{name: c, command: [sleep]}]}\n"))...); err == nil || !strings.Contains(out, "securityContext.runAsUser") {
		t.Errorf("another user: %v, %q", err, out)
	}
}

// becomeOrdinary runs the rest of the test, and the mesh, as a user without any
// privilege.
func (c *ctl) becomeOrdinary() {
	c.t.Helper()
	// The test binary lies where only root may look; the user gets a copy.
	self, state := c.path, c.state
	dir := shortDir(c.t)
	os.Chmod(dir, 0o777)
	data, err := os.ReadFile(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.path, c.state = filepath.Join(dir, "meshctl"), filepath.Join(dir, "s")
	if err := os.WriteFile(c.path, data, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.cred = &syscall.Credential{Uid: 65534, Gid: 65534}
	c.t.Cleanup(func() {
		if out, err := c.run("down"); err != nil {
			c.t.Errorf("down: %v\n%s", err, out)
		}
		c.path, c.state, c.cred = self, state, nil
	})
}

func TestAStatePathThatIsTooLongForSocketsIsRefused(t *testing.T) {
	c := newCtl(t)
	state := c.state
	c.state = filepath.Join(state, strings.Repeat("long", 25))
	out, err := c.run(c.upArgs(c.file(objects))...)
	c.state = state
	if err == nil || !strings.Contains(out, "choose a shorter one") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAFolderOfSomebodyElseIsLeftAlone(t *testing.T) {
	c := newCtl(t)
	own := filepath.Join(c.state, "config", "mine.txt")
	os.MkdirAll(filepath.Dir(own), 0o700)
	os.WriteFile(own, []byte("mine"), 0o600)
	if out, err := c.run(c.upArgs(c.file(objects))...); err == nil || !strings.Contains(out, "was not made by meshctl") {
		t.Errorf("up: %v: %s", err, out)
	}
	c.must("down")
	if _, err := os.Stat(own); err != nil {
		t.Error(err)
	}
}
