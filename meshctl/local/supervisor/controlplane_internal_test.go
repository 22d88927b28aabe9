package supervisor

import (
	"encoding/json"
	"testing"
)

func TestWaypointsAreNotCountedAsZtunnels(t *testing.T) {
	for _, c := range []struct {
		page, unsynced string
		ztunnels       int
	}{
		{`[]`, "", 0},
		{`[{"node": "waypoint~10.0.0.2~w.shop~shop.svc", "machine": "node-2", "types": {"a": {"state": "SYNCED"}}},
		   {"node": "ztunnel~10.0.0.1~z.istio-system~istio-system.svc", "machine": "node-1", "types": {"a": {"state": "SYNCED"}}}]`, "", 1},
		{`[{"node": "ztunnel~10.0.0.1~z.a~a.svc", "machine": "node-1", "types": {"a": {"state": "SYNCED"}}},
		   {"node": "waypoint~10.0.0.2~w.shop~shop.svc", "machine": "node-1", "types": {"a": {"state": "SYNCED"}, "b": {"state": "STALE"}}}]`, "node-1/waypoint", 1},
	} {
		var clients []xdsClient
		if err := json.Unmarshal([]byte(c.page), &clients); err != nil {
			t.Fatal(err)
		}
		if ztunnels, unsynced := progress(clients); ztunnels != c.ztunnels || unsynced != c.unsynced {
			t.Errorf("%d ztunnels, unsynced %q; want %d, %q", ztunnels, unsynced, c.ztunnels, c.unsynced)
		}
	}
}
