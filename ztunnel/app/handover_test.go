package app

import (
	"fmt"
	"io"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// A node's ztunnel is replaced while both run: the new one listens beside the old
// one, and the old one drains. Nothing is lost, neither of the pods that it serves
// nor of those that talk to them.
func TestTwoZtunnelsHandOverWithoutLoss(t *testing.T) {
	carriers(t, func(t *testing.T, carrier config.Carrier) {
		w := newWorld(t, carrier)
		w.web()
		client, server := w.meshPod("client", "n1"), w.addPod("server", "n2")
		w.announce(w.webWorkload(server, api.TunnelProtocol_HBONE))
		w.must(redirect.Apply(server.ns, redirect.Config{}))
		w.start(server, "web")
		outside := w.addPod("outside", "n2")
		w.serve(server, 8080, echo)
		w.serve(outside, 8080, echo)

		var loads []*load
		loads = append(loads, w.load(outside, server.at(8080), 20*time.Millisecond)) // 15006
		if carrier == config.CarrierH2 {
			loads = append(loads, w.load(client, webVIP, 20*time.Millisecond)) // 15001 and 15008
		}
		loads = append(loads, w.load(server, outside.at(8080), 20*time.Millisecond)) // 15001
		old := w.dial(client, server.at(8080))
		if _, err := old.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(old, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			before := server.proxy
			fresh := w.node(server.node.cfg) // another process, for all that the pod can see
			w.nodes[fmt.Sprintf("n2-%p", fresh)] = fresh
			w.announceAll(fresh, client, server)
			server.node = fresh
			w.start(server, "web")
			reach(t, 20, loads...)
			drained := make(chan struct{})
			go func() { defer close(drained); before.Drain(t.Context()) }()
			reach(t, 50, loads...)
			if old != nil {
				// What the old one carries goes on to its end.
				if _, err := old.Write([]byte("pong")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(old, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
				w.must(old.Close())
				old = nil
			}
			<-drained
		}
		for _, l := range loads {
			l.stop(t)
		}
		// QUIC has moved with the rest, as soon as the port was free.
		if err := once(client, server.at(8080)); err != nil {
			t.Errorf("after all: %v", err)
		}
	})
}

// announceAll gives a node that is new what the others know.
func (w *world) announceAll(p *pods, members ...*testPod) {
	w.t.Helper()
	all := w.nodes
	w.nodes = map[string]*pods{"": p}
	defer func() { w.nodes = all }()
	w.web()
	for _, m := range members {
		wl := w.workload(m, api.TunnelProtocol_HBONE)
		if m.name == "server" {
			wl = w.webWorkload(m, api.TunnelProtocol_HBONE)
		}
		w.announce(wl)
	}
}
