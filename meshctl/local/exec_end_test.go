package local_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
