package xds_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	apiworkload "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

// holder is a client that keeps what it is sent, as a proxy does.
type holder struct {
	*stream
	holds map[string]string // version by name
	owed  []*discovery.DeltaDiscoveryResponse
}

// take reads what has come, without acknowledging it.
func (h *holder) take() bool {
	synctest.Wait()
	select {
	case r := <-h.responses:
		for _, res := range r.Resources {
			h.holds[res.Name] = res.Version
		}
		for _, name := range r.RemovedResources {
			delete(h.holds, name)
		}
		h.owed = append(h.owed, r)
		return true
	default:
		return false
	}
}

func (h *holder) ackAll() {
	for _, r := range h.owed {
		h.ack(r)
	}
	h.owed = nil
	synctest.Wait()
}

// TestEveryClientEndsWithTheState runs random histories: clients that are quick,
// slow, come late, or come again with versions that are right, wrong, old or not
// known, all hold what was published last once they have taken everything.
func TestEveryClientEndsWithTheState(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			server, m := newServer(t, nil)
			state := map[string]string{}
			var clients []*holder
			join := func(holds map[string]string) {
				h := &holder{stream: connect(t, server), holds: holds}
				h.send(&request{InitialResourceVersions: maps.Clone(holds)})
				clients = append(clients, h)
			}
			for step := range 60 {
				switch op := rnd.IntN(10); {
				case op < 4: // some changes
					for range 1 + rnd.IntN(4) {
						name := fmt.Sprintf("p%d", rnd.IntN(20))
						if rnd.IntN(3) == 0 {
							delete(state, name)
						} else {
							state[name] = fmt.Sprintf("a%d.%d", step, rnd.IntN(3))
						}
					}
					m.publish(state)
				case op < 5 && len(clients) < 6:
					holds := map[string]string{}
					switch rnd.IntN(3) {
					case 0: // it comes again
						if len(clients) > 0 {
							holds = maps.Clone(clients[rnd.IntN(len(clients))].holds)
						}
					case 1: // from another control plane, of which it does not know versions
						holds[uid("p1")], holds[uid("foreign")] = "", ""
					}
					join(holds)
				case op < 8 && len(clients) > 0:
					clients[rnd.IntN(len(clients))].take()
				case len(clients) > 0:
					c := clients[rnd.IntN(len(clients))]
					c.take()
					c.ackAll()
				}
			}
			m.publish(state)
			for _, c := range clients {
				for c.take() || len(c.owed) > 0 {
					c.ackAll()
				}
				got := slices.Sorted(maps.Keys(c.holds))
				entries := m.current.Sets[snapshot.AddressType].Entries
				if want := slices.Sorted(maps.Keys(entries)); !slices.Equal(got, want) {
					t.Fatalf("seed %d: a client holds %v, want %v", seed, got, want)
				}
				for name, e := range entries {
					if c.holds[name] != e.Version {
						t.Fatalf("seed %d: a client holds %s at %q, want %q", seed, name, c.holds[name], e.Version)
					}
				}
			}
			for _, st := range server.Status() {
				if ty := st.Types[snapshot.AddressType]; ty.State != xds.Synced || ty.Resources != len(state) || ty.PendingNames != 0 {
					t.Fatalf("seed %d: status %+v", seed, ty)
				}
			}
			for _, c := range clients {
				c.close()
			}
		})
	}
}

func TestAStreamEndsWithItsCallersToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, func(c *xds.Config) {
			c.Expiry = func(context.Context) time.Time { return time.Now().Add(time.Hour) }
		})
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		c.send(&request{})
		c.ack(c.next())
		time.Sleep(time.Hour - time.Second)
		m.publish(map[string]string{"a": "10.0.0.2"})
		r := c.next() // to the end it is served
		c.ack(r)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := <-c.ended; err != nil {
			t.Errorf("the stream ended with %v, want its end in order", err)
		}
		// The client comes again, with another token and what it has.
		c = connect(t, server)
		defer c.close()
		c.send(&request{InitialResourceVersions: map[string]string{r.Resources[0].Name: r.Resources[0].Version}})
		expect(t, c.next())
	})
}

// TestProxiesThatAskForNothingHoldNobodyUp fills the turns at which first
// requests are read.
func TestProxiesThatAskForNothingHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1"})
		for range 20 {
			defer connect(t, server).close()
		}
		synctest.Wait()
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		time.Sleep(2 * time.Second)
		expect(t, c.next(), uid("a"))
	})
}

// BenchmarkOneChangeFor100Clients is the cost of a publication of ten changes
// among 10,000 resources, without gRPC.
func BenchmarkOneChangeFor100Clients(b *testing.B) {
	server, err := xds.New(xds.Config{Authorize: func(context.Context) (string, error) { return "istio-system/ztunnel", nil }, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	resources := map[string]*translate.Resource{}
	put := func(i, version int) {
		name := uid(fmt.Sprintf("web-%d", i))
		resources[name] = &translate.Resource{Name: name, Body: &apiworkload.Address{Type: &apiworkload.Address_Workload{
			Workload: &apiworkload.Workload{Uid: name, Hostname: fmt.Sprintf("%d-%d", i, version), Namespace: "shop", Node: "node", CanonicalName: "web"}}}}
	}
	for i := range 10_000 {
		put(i, 0)
	}
	var current *snapshot.Snapshot
	publish := func() {
		next, change, err := snapshot.Next(current, &translate.Mesh{Addresses: resources})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		current = next
		server.Publish(next, change, time.Now())
	}
	publish()
	var clients []*discard
	for range 100 {
		clients = append(clients, newDiscard(b, server))
	}
	round := 0
	for b.Loop() {
		b.StopTimer()
		round++
		for i := range 10 {
			put((round*10+i)%10_000, round)
		}
		publish()
		for _, c := range clients {
			<-c.sent
		}
	}
}

// discard is a client that acknowledges at once.
type discard struct {
	*stream
	sent chan struct{}
}

func newDiscard(b *testing.B, server *xds.Server) *discard {
	ctx, cancel := context.WithCancel(context.Background())
	d := &discard{stream: &stream{ctx: ctx, requests: make(chan *discovery.DeltaDiscoveryRequest, 1)}, sent: make(chan struct{})}
	d.requests <- &request{TypeUrl: snapshot.AddressType}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.DeltaAggregatedResources(d)
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	<-d.sent
	return d
}

func (d *discard) SendMsg(m any) error {
	encoded, err := xds.Codec().Marshal(m)
	if err != nil {
		return err
	}
	if encoded.Len() == 0 {
		return errors.New("an empty response")
	}
	var r discovery.DeltaDiscoveryResponse
	// The first buffer holds the client's own fields.
	if err := proto.Unmarshal(encoded[0].ReadOnlyData(), &r); err != nil {
		return err
	}
	d.requests <- &request{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}
	d.sent <- struct{}{}
	return nil
}
