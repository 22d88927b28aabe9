package xds_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

type request = discovery.DeltaDiscoveryRequest

func TestASubscriberToEverythingGetsAllThenDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"})
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		first := c.next()
		expect(t, first, uid("a"), uid("b"))
		if first.Resources[0].Version == "" || first.Resources[0].Aliases[0] == "" {
			t.Errorf("resource without version or alias: %v", first.Resources[0])
		}
		c.ack(first)
		c.nothing()
		m.publish(map[string]string{"a": "10.0.0.1", "c": "10.0.0.3"})
		second := c.next()
		expect(t, second, "-"+uid("b"), uid("c"))
		if second.Nonce == first.Nonce {
			t.Error("the nonce is not new")
		}
		c.ack(second)
		m.publish(map[string]string{"a": "10.0.0.1", "c": "10.0.0.3"}) // nothing changed
		c.nothing()
	})
}

func TestAnEmptyTypeIsAnsweredTooSoThatClientsSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(nil)
		c := connect(t, server)
		defer c.close()
		c.send(&request{TypeUrl: snapshot.AuthorizationType})
		expect(t, c.next())
	})
}

func TestBeforeTheFirstStateClientsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		c.nothing()
		m.publish(map[string]string{"a": "10.0.0.1"})
		expect(t, c.next(), uid("a"))
	})
}

func TestAReconnectWithVersionsBringsOnlyWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"})
		c := connect(t, server)
		c.send(&request{})
		versions := map[string]string{}
		for _, r := range c.next().Resources {
			versions[r.Name] = r.Version
		}
		if err := c.close(); err != nil {
			t.Errorf("a client that leaves is no error: %v", err)
		}
		// Another process with other objects, but the same content for a.
		server, m = newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1", "b": "10.9.9.9", "d": "10.0.0.4"})
		c = connect(t, server)
		defer c.close()
		c.send(&request{InitialResourceVersions: versions})
		expect(t, c.next(), uid("b"), "-"+uid("c"), uid("d"))
	})
}

func TestChangesDuringAResponseUnderWayAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(many(100, "a"))
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		first := c.next() // not acknowledged yet
		for i := range 50 {
			w := many(100, "a")
			w["p1"] = fmt.Sprintf("b.%d", i)
			delete(w, "p2")
			m.publish(w)
		}
		c.nothing()
		if st := server.Status()[0].Types[snapshot.AddressType]; st.PendingNames != 2 || st.State != xds.Pending {
			t.Errorf("status %+v, want two pending names", st)
		}
		c.ack(first)
		r := c.next()
		expect(t, r, uid("p1"), "-"+uid("p2"))
		if r.Resources[0].Aliases[0] != "/b.49" {
			t.Errorf("not the newest state: %v", r.Resources[0])
		}
		c.ack(r)
		c.nothing()
		if st := server.Status()[0].Types[snapshot.AddressType]; st.State != xds.Synced || st.Resources != 99 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestAWorkloadNeverStandsWithoutItsPolicies follows what a proxy holds, response
// by response: new policies come before the workloads that list them, and old
// ones go after the workloads have let go of them.
func TestAWorkloadNeverStandsWithoutItsPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.policies = []string{"shop/old"}
		m.publish(map[string]string{"a": "lists old"})
		c := connect(t, server)
		defer c.close()
		c.send(&request{TypeUrl: snapshot.AddressType})
		c.send(&request{TypeUrl: snapshot.AuthorizationType})
		c.ack(c.next())
		c.ack(c.next())
		c.nothing()

		m.policies = []string{"shop/new"}
		m.publish(map[string]string{"a": "lists new"})
		first := c.next()
		expect(t, first, "shop/new")
		second := c.next()
		expect(t, second, uid("a"))
		c.nothing() // one response of a type at a time
		c.ack(first)
		c.ack(second)
		third := c.next()
		expect(t, third, "-shop/old")

		// A policy that cannot be sent yet holds its workloads back.
		m.policies = []string{"shop/new", "shop/newer"}
		m.publish(map[string]string{"a": "lists newer"})
		c.nothing()
		c.ack(third)
		fourth := c.next()
		expect(t, fourth, "shop/newer")
		fifth := c.next()
		expect(t, fifth, uid("a"))

		// And workloads that cannot hold back what they have listed.
		c.ack(fourth)
		m.policies = nil
		m.publish(map[string]string{"a": "lists none"})
		c.nothing()
		c.ack(fifth)
		sixth := c.next()
		expect(t, sixth, uid("a"))
		seventh := c.next()
		expect(t, seventh, "-shop/new", "-shop/newer")
		c.ack(sixth)
		c.ack(seventh)
		c.nothing()
		for url, st := range server.Status()[0].Types {
			if st.State != xds.Synced {
				t.Errorf("%s: %+v", url, st)
			}
		}
	})
}

// TestASlowClientHoldsBackNobody leaves one client without reading: others get
// every change at once, Publish never waits, what is kept for the slow one does
// not grow, and in the end it is cut off.
func TestASlowClientHoldsBackNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disconnected int
		server, m := newServer(t, func(c *xds.Config) {
			c.SendTimeout = time.Minute
			c.Disconnect = func(context.Context) { disconnected++ }
		})
		m.publish(many(1000, "a"))
		slow, fast := connect(t, server), connect(t, server)
		defer fast.close()
		slow.send(&request{}) // and never reads
		fast.send(&request{})
		fast.ack(fast.next())
		heap := func() uint64 {
			runtime.GC()
			var ms runtime.MemStats
			runtime.ReadMemStats(&ms)
			return ms.HeapAlloc
		}
		round := func(i int) {
			started := time.Now()
			m.publish(many(1000, fmt.Sprintf("r%d", i)))
			if waited := time.Since(started); waited != 0 {
				t.Fatalf("Publish waited %v", waited)
			}
			r := fast.next()
			if len(r.Resources) != 1000 {
				t.Fatalf("round %d: the fast client got %d resources", i, len(r.Resources))
			}
			fast.ack(r)
			synctest.Wait()
		}
		for i := range 5 {
			round(i)
		}
		before := heap()
		for i := range 100 {
			round(i + 5)
		}
		if grown := int64(heap()) - int64(before); grown > 2<<20 {
			t.Errorf("100 rounds of 1,000 changes left %d KiB more on the heap", grown>>10)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := <-slow.ended; status.Code(err) != codes.DeadlineExceeded || disconnected != 1 {
			t.Errorf("the slow client ended with %v after %d disconnects", err, disconnected)
		}
		if n := len(server.Status()); n != 1 {
			t.Errorf("%d clients left", n)
		}
	})
}

func TestARefusalIsRememberedAndNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		c.nack(c.next(), "a: bad address")
		c.nothing() // sending the same again would get the same answer
		st := server.Status()[0].Types[snapshot.AddressType]
		if st.State != xds.Nacked || st.LastNack != "a: bad address" || st.Nacks != 1 || st.AckedVersion != "" {
			t.Errorf("status %+v", st)
		}
		m.publish(map[string]string{"a": "10.0.0.2"})
		c.ack(c.next())
		synctest.Wait()
		if st := server.Status()[0].Types[snapshot.AddressType]; st.State != xds.Synced || st.LastNack != "" {
			t.Errorf("status after the next change %+v", st)
		}
	})
}

func TestAnOldNonceAcknowledgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		defer c.close()
		c.send(&request{})
		first := c.next()
		m.publish(map[string]string{"a": "10.0.0.2"})
		c.send(&request{ResponseNonce: "99"})
		c.nothing()
		c.ack(first)
		expect(t, c.next(), uid("a"))
	})
}

func TestOnDemandAnswersWhatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.members = map[string]string{"a": "shop/web", "b": "shop/web"}
		state := map[string]string{"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}
		m.publish(state)
		c := connect(t, server)
		defer c.close()
		c.send(&request{ResourceNamesSubscribe: []string{"*"}, ResourceNamesUnsubscribe: []string{"*"}})
		r := c.next()
		expect(t, r)
		c.ack(r)
		ask := func(keys ...string) *discovery.DeltaDiscoveryResponse {
			c.send(&request{ResourceNamesSubscribe: keys})
			r := c.next()
			c.ack(r)
			synctest.Wait()
			return r
		}
		expect(t, ask("/10.0.0.3"), uid("c"))
		expect(t, ask("/10.0.0.77"), "-/10.0.0.77") // the asker waits for an answer
		expect(t, ask("shop/web"), "shop/web", uid("a"), uid("b"))
		expect(t, ask("shop/none", uid("c")), "-shop/none", uid("c"))
		// Differences of what was asked for come by themselves.
		state["b"], state["new"] = "10.0.0.22", "10.0.0.77"
		m.members["d"], state["d"] = "shop/web", "10.0.0.4"
		m.publish(state)
		r = c.next()
		expect(t, r, uid("b"), uid("d"), uid("new"))
		c.ack(r)
		delete(state, "c")
		state["e"] = "10.0.0.5" // nobody asked
		m.publish(state)
		r = c.next()
		expect(t, r, "-"+uid("c"))
		c.ack(r)
		c.send(&request{ResourceNamesUnsubscribe: []string{"/10.0.0.77", uid("new")}})
		synctest.Wait() // a change that comes first is rightly sent
		state["new"] = "10.0.0.78"
		m.publish(state)
		c.nothing()
	})
}

func TestASubscriptionByTheServicesAddressBringsItsWorkloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, nil)
		m.members = map[string]string{"a": "shop/web"}
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		defer c.close()
		c.send(&request{ResourceNamesSubscribe: []string{"/vip-shop/web"}})
		r := c.next()
		expect(t, r, "shop/web", uid("a"))
		c.ack(r)
		m.publish(map[string]string{"a": "10.0.0.9"})
		expect(t, c.next(), uid("a"))
	})
}

func TestAStreamNeedsAnAccountAndALimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allow := false
		server, _ := newServer(t, func(c *xds.Config) {
			c.MaxClients = 1
			c.Authorize = func(context.Context) (string, error) {
				if !allow {
					return "", errors.New("shop/web is no node account")
				}
				return "x/y", nil
			}
		})
		err := <-connect(t, server).ended
		if status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "shop/web") {
			t.Errorf("refused with %v, want PermissionDenied without the reason", err)
		}
		allow = true
		c := connect(t, server)
		synctest.Wait()
		if err := <-connect(t, server).ended; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the second stream ended with %v", err)
		}
		server.Close()
		if err := <-c.ended; status.Code(err) != codes.Unavailable {
			t.Errorf("after Close the stream ended with %v", err)
		}
		if err := <-connect(t, server).ended; status.Code(err) != codes.Unavailable {
			t.Errorf("a stream after Close ended with %v", err)
		}
	})
}

func TestRequestsThatBreakTheProtocol(t *testing.T) {
	for name, req := range map[string]*request{
		"empty name": {ResourceNamesSubscribe: []string{""}},
		"long name":  {ResourceNamesSubscribe: []string{strings.Repeat("x", 5000)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, m := newServer(t, nil)
				m.publish(nil)
				c := connect(t, server)
				c.send(req)
				if err := <-c.ended; status.Code(err) != codes.InvalidArgument {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
	t.Run("unknown type is waited for in vain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server, m := newServer(t, nil)
			m.publish(map[string]string{"a": "10.0.0.1"})
			c := connect(t, server)
			defer c.close()
			c.send(&request{TypeUrl: "type.googleapis.com/future.Thing"})
			c.nothing()
			c.send(&request{})
			expect(t, c.next(), uid("a"))
		})
	})
	t.Run("too many subscriptions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server, m := newServer(t, nil)
			m.publish(nil)
			c := connect(t, server)
			keys := make([]string, 100_001)
			for i := range keys {
				keys[i] = fmt.Sprintf("/k%d", i)
			}
			c.send(&request{ResourceNamesSubscribe: keys})
			if err := <-c.ended; status.Code(err) != codes.InvalidArgument {
				t.Errorf("ended with %v", err)
			}
		})
	})
}
