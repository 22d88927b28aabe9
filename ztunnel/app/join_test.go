package app

import (
	"context"
	"io"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// announceTo tells one node only.
func (w *world) announceTo(node string, wl *api.Workload) {
	w.t.Helper()
	all := w.nodes
	w.nodes = map[string]*pods{node: all[node]}
	defer func() { w.nodes = all }()
	w.announce(wl)
}

// A running pod joins and leaves the mesh, again and again, under load from and to
// members and others. Its own node hears of each change before the others, and
// after them, in turn.
func TestRunningPodJoinsAndLeavesUnderLoadWithoutLoss(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		w.web()
		member, near, outside := w.meshPod("member", "n1"), w.meshPod("near", "n2"), w.addPod("outside", "n1")
		pod := w.addPod("pod", "n2")
		pod.uid = "pod"
		w.announce(w.webWorkload(pod, api.TunnelProtocol_NONE))
		w.announce(w.workload(outside, api.TunnelProtocol_NONE))
		for _, p := range []*testPod{member, near, outside, pod} {
			w.serve(p, 8080, echo)
		}
		const pace, lag = 50 * time.Millisecond, 100 * time.Millisecond
		loads := []*load{
			w.load(member, pod.at(8080), pace), w.load(member, webVIP, pace), w.load(near, pod.at(8080), pace),
			w.load(outside, pod.at(8080), pace), w.load(pod, member.at(8080), pace), w.load(pod, near.at(8080), pace),
			w.load(pod, outside.at(8080), pace),
		}
		tell := func(protocol api.TunnelProtocol, ownFirst bool) {
			nodes := []string{"n1", "n2"}
			if ownFirst {
				nodes = []string{"n2", "n1"}
			}
			for _, n := range nodes {
				w.announceTo(n, w.webWorkload(pod, protocol))
				time.Sleep(lag)
			}
		}
		for round := range 4 {
			// As ztunnel/agent/enrol has it.
			w.start(pod, "web")
			w.must(redirect.Apply(pod.ns, redirect.Config{}))
			reach(t, 5, loads...)
			tell(api.TunnelProtocol_HBONE, round%2 == 0)
			reach(t, 8, loads...)
			kept := w.dial(pod, member.at(8080)) // outlives the membership
			if _, err := kept.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			tell(api.TunnelProtocol_NONE, round%2 == 1)
			w.must(redirect.Release(pod.ns, redirect.Config{}))
			time.Sleep(5 * lag)
			last := pod.proxy
			done := make(chan struct{})
			go func() {
				defer close(done)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				last.Drain(ctx)
			}()
			reach(t, 8, loads...)
			if err := kept.CloseWrite(); err != nil {
				t.Error(err)
			}
			if b, err := io.ReadAll(kept); err != nil || string(b) != "x" {
				t.Errorf("a connection of before ended with %q, %v", b, err)
			}
			if round == 3 {
				<-done
				w.must(redirect.Remove(pod.ns))
				reach(t, 5, loads...)
			}
		}
		for _, l := range loads {
			l.stop(t)
		}
	})
}

func TestZtunnelThatEndsTakesConnectionsWhileOlderOnesLive(t *testing.T) {
	w := newWorld(t, config.CarrierH2)
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.serve(server, 8080, echo)
	old := w.dial(client, server.at(8080))
	if _, err := old.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); w.nodes["n2"].linger(t.Context()) }()
	for range 20 {
		if err := once(client, server.at(8080)); err != nil {
			t.Fatal(err)
		}
	}
	// Neither do those that came meanwhile keep it.
	young := w.dial(client, server.at(8080))
	if _, err := young.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(young, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Fatal("ended with an older connection alive")
	default:
	}
	_ = old.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("does not end")
	}
}

func TestLingeringHasItsDeadline(t *testing.T) {
	w := newWorld(t, config.CarrierH2, func(c *config.Config) { c.DrainDeadline = 200 * time.Millisecond })
	client, server := w.meshPod("client", "n1"), w.meshPod("server", "n2")
	w.serve(server, 8080, echo)
	old := w.dial(client, server.at(8080))
	if _, err := old.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.nodes["n2"].linger(t.Context())
	server.proxy.Drain(t.Context())
	refused(t, old)
	w.logged(`direction="inbound"`, "drain deadline passed")
}
