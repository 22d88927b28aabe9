package xds_test

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
	"github.com/tulle-mesh/tulle/istiod-lite/xds"
)

const wp, other = "waypoint/shop/wp", "waypoint/shop/other"

// newScoped returns a server whose every caller is the waypoint wp.
func newScoped(t *testing.T) (*xds.Server, *mesh) {
	return newServer(t, func(c *xds.Config) {
		c.Authorize = func(context.Context) (string, error) { return "shop/wp", nil }
		c.Scope = func(account string) xds.Scope {
			if account != "shop/wp" {
				t.Errorf("asked about %s", account)
			}
			return xds.Scope{Aliases: []string{wp}}
		}
	})
}

func TestAWaypointHasWhatIsItsAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newScoped(t)
		m.services = map[string]string{"shop/web": wp, "shop/api": other}
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		defer c.close()
		subscribe := func(url, key string) { c.send(&request{TypeUrl: url, ResourceNamesSubscribe: []string{key}}) }
		subscribe(snapshot.WaypointServiceType, wp)
		r := c.next()
		expect(t, r, "shop/web")
		c.ack(r)

		// A service comes to the waypoint, and another leaves it for the other one.
		m.services = map[string]string{"shop/web": other, "shop/api": wp}
		m.publish(map[string]string{"a": "10.0.0.1"})
		r = c.next()
		expect(t, r, "shop/api", "-shop/web")
		c.ack(r)
		m.services["shop/web"] = "waypoint/shop/third"
		m.publish(map[string]string{"a": "10.0.0.1"})
		c.nothing()

		// Addresses it has by name, as who asks on demand does.
		c.send(&request{ResourceNamesSubscribe: []string{"*", "/10.0.0.1"}, ResourceNamesUnsubscribe: []string{"*"}})
		r = c.next()
		expect(t, r, uid("a"))
		c.ack(r)
		m.publish(map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"})
		c.nothing()
	})
}

func TestAWaypointIsRefusedWhatIsNotIts(t *testing.T) {
	for name, req := range map[string]*request{
		"another's services":     {TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{other}},
		"another's policies":     {TypeUrl: snapshot.WaypointPolicyType, ResourceNamesSubscribe: []string{wp, other}},
		"a service by its name":  {TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{"shop/web"}},
		"all services":           {TypeUrl: snapshot.WaypointServiceType},
		"all services, by star":  {TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{"*"}},
		"all addresses":          {},
		"all addresses, by star": {ResourceNamesSubscribe: []string{"*"}},
		"node proxies' policies": {TypeUrl: snapshot.AuthorizationType, ResourceNamesSubscribe: []string{"shop/p"}},
		"all of their policies":  {TypeUrl: snapshot.AuthorizationType},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, m := newScoped(t)
				m.services, m.waypointPolicies = map[string]string{"shop/web": other}, map[string]string{"shop/p": other}
				m.publish(map[string]string{"a": "10.0.0.1"})
				c := connect(t, server)
				c.send(req)
				if err := <-c.ended; status.Code(err) != codes.PermissionDenied {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
	t.Run("later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server, m := newScoped(t)
			m.services = map[string]string{"shop/web": wp, "shop/api": other}
			m.publish(nil)
			c := connect(t, server)
			c.send(&request{TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{wp}})
			c.ack(c.next())
			c.send(&request{TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{other}})
			if err := <-c.ended; status.Code(err) != codes.PermissionDenied {
				t.Errorf("ended with %v", err)
			}
		})
	})
}

// TestANodeProxyHasNoWaypointsConfiguration has everything else.
func TestANodeProxyHasNoWaypointsConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newServer(t, func(c *xds.Config) { c.Scope = func(string) xds.Scope { return xds.Scope{Everything: true} } })
		m.services = map[string]string{"shop/web": wp}
		m.publish(map[string]string{"a": "10.0.0.1"})
		c := connect(t, server)
		c.send(&request{})
		r := c.next()
		expect(t, r, uid("a"))
		c.ack(r)
		c.send(&request{TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{wp}})
		if err := <-c.ended; status.Code(err) != codes.PermissionDenied {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestAWaypointsPoliciesComeBeforeTheServicesThatListThem and go after them, and so
// do its checks of tokens: a service whose policies are not all there is refused.
func TestAWaypointsPoliciesComeBeforeTheServicesThatListThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, m := newScoped(t)
		m.publish(nil)
		c := connect(t, server)
		defer c.close()
		for _, url := range []string{snapshot.WaypointServiceType, snapshot.WaypointPolicyType, snapshot.WaypointAuthenticationType} {
			c.send(&request{TypeUrl: url, ResourceNamesSubscribe: []string{wp}})
			r := c.next()
			expect(t, r, "-"+wp)
			c.ack(r)
			synctest.Wait()
		}
		expectInOrder := func(names ...string) {
			t.Helper()
			for _, name := range names {
				r := c.next()
				expect(t, r, name)
				c.ack(r)
				synctest.Wait()
			}
			c.nothing()
		}
		m.services, m.waypointPolicies, m.authentications = map[string]string{"shop/web": wp}, map[string]string{"shop/p": wp}, map[string]string{"shop/tokens": wp}
		m.publish(nil)
		expectInOrder("shop/p", "shop/tokens", "shop/web")
		m.services, m.waypointPolicies, m.authentications = nil, nil, nil
		m.publish(nil)
		expectInOrder("-shop/web", "-shop/p", "-shop/tokens")
	})
}
