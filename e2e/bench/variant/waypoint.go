package variant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
)

// waypoint is the mesh with a waypoint before the service: from the client's ztunnel
// through a tunnel to the waypoint, and from there through another to the server's
// ztunnel, with the real istiod-lite and its certificates. What counts is the waypoint's
// process.
type waypoint struct {
	*Tulle
	top *topology.Topology
}

func newWaypoint(c Config) *waypoint { return &waypoint{Tulle: newTulle(c, "h2")} }

// Name implements Variant.
func (*waypoint) Name() string { return "waypoint-hbone" }

const (
	waypointUID     = "00000000-0000-4000-8000-000000000003"
	waypointAccount = "waypoint"
	// serviceAddr is the virtual address of the service.
	serviceAddr = "10.96.0.10"
	// The waypoint's ports for metrics and readiness.
	metricsPort, readyPort = 15020, 15021
)

// waypointObjects put a waypoint before the service of the server pod.
var waypointObjects = fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  selector: {app: server}
  ports:
  - {name: http, port: %[3]d, targetPort: %[3]d}
  - {name: grpc, port: %[4]d, targetPort: %[4]d}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: %[1]s}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: %[3]d}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: web, port: %[3]d}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: %[1]s}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: %[1]s, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec:
  clusterIP: 10.96.0.11
  clusterIPs: [10.96.0.11]
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}
  ports: [{name: mesh, port: 15008, appProtocol: hbone}]
---
apiVersion: v1
kind: Pod
metadata:
  name: waypoint-0
  namespace: %[1]s
  uid: %[5]s
  labels: {gateway.networking.k8s.io/gateway-name: waypoint, gateway.istio.io/managed: istio.io-mesh-controller, istio.io/dataplane-mode: none}
spec: {nodeName: %[6]s, serviceAccountName: %[7]s, containers: [{name: main}]}
status:
  phase: Running
  podIP: %[8]s
  podIPs: [{ip: %[8]s}]
  conditions: [{type: Ready, status: "True"}]
`, podNamespace, serviceAddr, webPort, grpcPort, waypointUID, topology.NodeB, waypointAccount, topology.WaypointAddr)

// Start implements Variant.
func (w *waypoint) Start(ctx context.Context, top *topology.Topology) (Running, error) {
	if _, err := os.Stat(filepath.Join(w.bin, "waypoint")); err != nil {
		return Running{}, fmt.Errorf("%w: %s: make build", ErrMissing, filepath.Join(w.bin, "waypoint"))
	}
	w.top, w.objects = top, waypointObjects
	if _, err := w.Tulle.Start(ctx, top); err != nil {
		return Running{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	pid, err := w.startWaypoint(top.Waypoint)
	if err != nil {
		return Running{}, err
	}
	err = await(ctx, "readiness of the waypoint", func() error {
		_, err := w.get(readyPort, "/healthz/ready")
		return err
	})
	return Running{
		HTTP: HTTP{
			HTTP1: net.JoinHostPort(serviceAddr, strconv.Itoa(webPort)), HTTP2: net.JoinHostPort(serviceAddr, strconv.Itoa(webPort)),
			GRPC: net.JoinHostPort(serviceAddr, strconv.Itoa(grpcPort)), Path: httpPath(1), Full: true,
		},
		Proxies: []int{pid},
		Passed:  w.passed,
	}, err
}

func (w *waypoint) startWaypoint(ns *topology.Namespace) (int, error) {
	token, err := nodetoken.Mint(w.key, nodetoken.Claims{
		Namespace: podNamespace, ServiceAccount: waypointAccount, PodName: "waypoint-0", PodUID: waypointUID, Node: topology.NodeB,
	}, 24*time.Hour)
	if err != nil {
		return 0, err
	}
	path := w.path("waypoint.token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		return 0, err
	}
	return w.start(ns, nil, filepath.Join(w.bin, "waypoint"),
		"--xds-address", at(topology.ControlAddr, portXDS), "--server-name", serverName,
		"--root-cert", w.path("authority", "root-cert.pem"), "--token-file", path, "--trust-domain", trustDomain,
		"--gateway", "waypoint", "--pod-name", "waypoint-0", "--pod-namespace", podNamespace, "--service-account", waypointAccount,
		"--node", topology.NodeB, "--instance-ip", topology.WaypointAddr.String(), "--drain-deadline", "1s")
}

// requestsTotal matches the lines of the counter of requests.
var requestsTotal = regexp.MustCompile(`(?m)^istio_requests_total\{[^\n]*\} ([0-9.e+]+)$`)

// passed tells how many requests the waypoint has answered.
func (w *waypoint) passed() (float64, error) {
	text, err := w.get(metricsPort, "/metrics")
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, m := range requestsTotal.FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Check implements Checker: figures of a path beside the waypoint would be worth nothing.
func (w *waypoint) Check() error {
	n, err := w.passed()
	if err == nil && n < 100 {
		err = fmt.Errorf("only %v requests went through the waypoint", n)
	}
	return err
}

// get asks one of the waypoint's own ports.
func (w *waypoint) get(port int, path string) ([]byte, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: dialIn(w.top.Waypoint)}
	resp, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port) + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != 200 {
		err = errors.New(resp.Status)
	}
	return b, err
}
