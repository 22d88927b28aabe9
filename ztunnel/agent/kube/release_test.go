package kube_test

import (
	"context"
	"net"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/tulle-mesh/tulle/ztunnel/agent/membership"
	"github.com/tulle-mesh/tulle/ztunnel/inpod"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestReleaseTakesAllPodsOut(t *testing.T) {
	n := newNode(t)
	n.run()
	p := n.newPod(n.api.Namespace(t, ambient))
	p.starts(p.w.Pod)
	p.expect("running", true, membership.Enabled)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // cuts the time for draining short
	defer cancel()
	n.unfollow()
	n.Release(ctx)
	if p.captured() || len(n.manager.Pods()) != 0 {
		t.Errorf("captured %v, %d pods", p.captured(), len(n.manager.Pods()))
	}
	if got := p.annotation(); got != "" {
		t.Errorf("annotation %q", got)
	}
	next := n.newPod(n.api.Namespace(t, ambient))
	if answer, err := n.Add(t.Context(), next.request()); err != nil || answer.Enrolled {
		t.Errorf("a new pod after the release: %+v, %v", answer, err)
	}
}

// Without an API server, and when all of the time is used up, nothing of the mesh
// stays in pods, not even in those that were leaving before.
func TestReleaseNeedsNoAPIServer(t *testing.T) {
	n := newNode(t)
	n.run()
	p, left := n.newPod(n.api.Namespace(t, ambient)), n.newPod(n.api.Namespace(t, ambient))
	for _, p := range []*pod{p, left} {
		p.starts(p.w.Pod)
		p.expect("running", true, membership.Enabled)
	}
	// The proxy's part of a connection that was captured, for as long as it drains.
	holds, err := inpod.Listen(left.w.Pod, 15001)
	if err != nil {
		t.Fatal(err)
	}
	for _, ln := range holds {
		defer ln.Close()
	}
	var ends []net.Conn
	if err := left.w.Pod.Do(func() error {
		c, err := net.Dial("tcp", "127.0.0.1:15001")
		ends = append(ends, c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ends[0].Close()
	left.label(membership.None)
	n.eventually("it drains", func() bool { return len(n.manager.Leaving()) == 1 })
	n.end()
	away, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	n.client = away
	n.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.Release(ctx)
	for _, p := range []*pod{p, left} {
		if present, err := redirect.Present(p.w.Pod); err != nil || present {
			t.Errorf("rules are there: %v, %v", present, err)
		}
	}
	if p, l := n.manager.Pods(), n.manager.Leaving(); len(p)+len(l) != 0 {
		t.Errorf("pods %v, leaving %v", p, l)
	}
}
