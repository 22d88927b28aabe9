package app_test

import (
	"context"
	"slices"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiwaypoint "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

const waypointYAML = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: wp}}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
`

// TestAWaypointSubscribesWithItsOwnAccount runs as what a Gateway's pods run under,
// and as others.
func TestAWaypointSubscribesWithItsOwnAccount(t *testing.T) {
	p := newPlane(t)
	p.write("mesh.yaml", namespaceYAML+"---\n"+waypointYAML)
	p.start()
	p.connect("ztunnel").synced() // the objects have been read
	ask := func(namespace, account, key string) (*discovery.DeltaDiscoveryResponse, error) {
		dial := p.dialConfig(account)
		dial.TokenFile = p.tokenOf(nodetoken.Claims{Namespace: namespace, ServiceAccount: account, PodName: account + "-1", PodUID: "u2", Node: "n1"})
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		conn, err := xdsclient.Dialer(dial)(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: snapshot.WaypointServiceType, ResourceNamesSubscribe: []string{key}}); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	r, err := ask("shop", "wp", "waypoint/shop/wp")
	if err != nil {
		t.Fatal(err)
	}
	web := &apiwaypoint.Service{}
	if len(r.Resources) != 1 || r.Resources[0].Resource.UnmarshalTo(web) != nil || len(web.GetPorts()) != 1 || len(web.GetPorts()[0].GetRoutes()) != 1 {
		t.Errorf("got %v", r)
	}
	if !slices.Equal(r.Resources[0].Aliases, []string{"waypoint/shop/wp"}) {
		t.Errorf("aliases %v", r.Resources[0].Aliases)
	}
	for _, c := range [][3]string{
		{"shop", "web", "waypoint/shop/wp"},             // a pod of the namespace
		{"other", "wp", "waypoint/shop/wp"},             // the name in another namespace
		{"shop", "wp", "waypoint/other/wp"},             // another's waypoint
		{"istio-system", "ztunnel", "waypoint/shop/wp"}, // a node proxy
	} {
		if r, err := ask(c[0], c[1], c[2]); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%v: %v, %v", c, r, err)
		}
	}
}
