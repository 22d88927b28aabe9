package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A command that outlived its pod would go on in its network after the pod's
// release from the mesh, in plaintext and with an address that is given again.
func TestACommandEndsWithItsPod(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	c.up(file)
	flag := filepath.Join(t.TempDir(), "runs")
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := c.run("exec", "client", "--", "sh", "-c", "trap '' TERM HUP; touch "+flag+"; while :; do sleep 1; done")
		done <- result{out, err}
	}()
	c.eventually("the command runs", func() error { _, err := os.Stat(flag); return err })
	out := c.up(file, c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop}\n"+
		"spec: {containers: [{name: c, command: [sleep, infinity]}]}\n"))
	if !strings.Contains(out, "stopping pod shop/client") || !strings.Contains(out, "starting pod shop/client") {
		t.Errorf("up says %q", out)
	}
	if r := <-done; r.err == nil || !strings.Contains(r.out, "pod shop/client was stopped") {
		t.Errorf("%v, %q", r.err, r.out)
	}
}

// Nor may a command that put itself into the background, away from the process
// group that exec can signal.
func TestADaemonOfACommandEndsWithItsPod(t *testing.T) {
	c := newCtl(t)
	file := c.file(objects)
	c.up(file)
	beat := filepath.Join(t.TempDir(), "beat")
	if out, err := c.run("exec", "client", "--", "setsid", "-f", "sh", "-c",
		"exec </dev/null >/dev/null 2>&1; trap '' TERM HUP; while :; do echo >>"+beat+"; sleep 0.05; done"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	size := func() int64 {
		info, err := os.Stat(beat)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	c.eventually("the daemon runs", func() error {
		if size() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	c.up(file, c.file("apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop}\n"+
		"spec: {containers: [{name: c, command: [sleep, infinity]}]}\n"))
	// It beats 20 times a second; a second look must find nothing new.
	before := size()
	time.Sleep(500 * time.Millisecond)
	if after := size(); after != before {
		t.Errorf("the daemon went on after its pod: %d beats, then %d", before, after)
	}
}
