package local_test

import (
	"errors"
	"strings"
	"testing"
)

// What holds from start to end is not passed over in silence later: the caller
// would believe in a mesh that is another one.
func TestAFlagThatIsFixedWhileTheMeshRunsIsRefused(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	c.up(file)
	for _, flag := range []string{"--trust-domain=other.test", "--ztunnel-arg=--carrier=h3", "--log-level=debug", "--bin-dir=/", "--no-mesh=false", "--name=other"} {
		name, _, _ := strings.Cut(flag, "=")
		out, err := c.run("--state-dir", c.state, "up", "-f", file, flag)
		if err == nil || !strings.Contains(out, name+": ") || !strings.Contains(out, "`meshctl local down` first") {
			t.Errorf("%s: %v, %q", flag, err, out)
		}
	}
	if out, err := c.run("up", "-f", file); err != nil || out != "nothing to change\n" {
		t.Errorf("flags left out: %v, %q", err, out)
	}
}

func TestFilesWithoutAnObjectDoNotEmptyTheMesh(t *testing.T) {
	c := newCtl(t)
	c.up(c.file(objects))
	before := c.status()
	for _, text := range []string{"", "---\n", "# nothing\n"} {
		if out, err := c.run(c.upArgs(c.file(text))...); err == nil || !strings.Contains(out, "no object in ") {
			t.Errorf("%q: %v, %q", text, err, out)
		}
	}
	if after := c.status(); len(after.Pods) != len(before.Pods) {
		t.Errorf("pods %+v", after.Pods)
	}
}

func TestAWordThatIsNoCommandIsAnError(t *testing.T) {
	c := newCtl(t)
	if out, err := c.run("statsu"); err == nil || !strings.Contains(out, `did you mean "status"?`) {
		t.Errorf("%v, %q", err, out)
	}
	if out, err := c.run("logs", "--tail", "-3", "supervisor"); err == nil {
		t.Errorf("a negative tail: %q", out)
	}
}

// An up that waits for what never runs keeps neither the one that mends it nor
// the end of the mesh waiting, and calls neither a success of its own.
func TestAnUpThatWaitsHoldsNobodyUp(t *testing.T) {
	c := newCtl(t)
	good := c.file(objects)
	c.up(good)
	stuck := c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: stuck, namespace: shop}\n" +
		"spec: {containers: [{name: c, command: [sleep, infinity], readinessProbe: {tcpSocket: {port: 9}}}]}\n")
	type result struct {
		out string
		err error
	}
	start := func() chan result {
		done := make(chan result, 1)
		go func() {
			out, err := c.run(append(c.upArgs(good, stuck), "--timeout", "5m")...)
			done <- result{out, err}
		}()
		c.eventually("the pod that never is ready runs", func() error {
			for _, p := range c.status().Pods {
				if p.Name == "stuck" {
					return nil
				}
			}
			return errors.New("no such pod")
		})
		return done
	}
	first := start()
	if out := c.up(good); !strings.Contains(out, "pod/stuck in shop removed") {
		t.Errorf("the up that mends says %q", out)
	}
	if r := <-first; r.err != nil {
		t.Errorf("the first up, mended meanwhile: %v, %q", r.err, r.out)
	}
	second := start()
	if out, err := c.run("down"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r := <-second; r.err == nil {
		t.Errorf("an up whose mesh was taken down says %q", r.out)
	}
}
