package app

import (
	"testing"

	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/ztunnel/config"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
)

// The pods of a StatefulSet have the same names in every cluster: what goes to the
// other cluster's must not be delivered here.
func TestDeliveryOnThisNodeIsForThisClustersPodsOnly(t *testing.T) {
	here := &inbound.Proxy{}
	p := &pods{
		cfg:    config.Config{ClusterID: "east"},
		byName: map[podName]*podProxy{{"shop", "db-0"}: {inbound: here}},
	}
	for uid, want := range map[string]*inbound.Proxy{
		"east//Pod/shop/db-0":                              here,
		"west//Pod/shop/db-0":                              nil,
		"east/networking.istio.io/WorkloadEntry/shop/db-0": nil,
	} {
		if got := p.Inbound(&workload.Workload{UID: uid, Namespace: "shop", Name: "db-0"}); got != want {
			t.Errorf("%s: delivered here: %v", uid, got != nil)
		}
	}
}
