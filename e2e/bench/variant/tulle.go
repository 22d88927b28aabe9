package variant

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/e2e/bench/load"
	"github.com/tulle-mesh/tulle/e2e/bench/topology"
	"github.com/tulle-mesh/tulle/internal/nodetoken"
)

// Tulle is the mesh itself, with one of its carriers: the control plane beside
// node A, and on each node an agent and a ztunnel that has the node's pod
// enrolled. The figures of memory and processor time are those of the ztunnels,
// as with the other variants those of what the bytes pass through.
type Tulle struct {
	processes
	bin     string
	carrier string
	// state holds what belongs to one start.
	state string
	// objects are given to the control plane besides the pods; key signs tokens for it.
	objects string
	key     *nodetoken.Key
}

func newTulle(c Config, carrier string) *Tulle {
	return &Tulle{processes: processes{dir: c.Dir}, bin: c.Bin, carrier: carrier}
}

// Name implements Variant.
func (t *Tulle) Name() string { return "tulle-" + t.carrier }

const (
	trustDomain = "cluster.local"
	// serverName is what istiod-lite's certificate carries.
	serverName = "istiod.istio-system.svc"
	portXDS    = 15012
	// The pods, all in one namespace.
	podNamespace = "bench"
	// startTimeout bounds the start of the whole mesh.
	startTimeout = 60 * time.Second
)

// pods are the two that are enrolled.
var pods = []struct{ name, uid, account, node, addr string }{
	{"client", "00000000-0000-4000-8000-000000000001", "client", topology.NodeA, topology.ClientAddr.String()},
	{"server", "00000000-0000-4000-8000-000000000002", "server", topology.NodeB, topology.ServerAddr.String()},
}

// Start implements Variant.
func (t *Tulle) Start(ctx context.Context, top *topology.Topology) (Running, error) {
	for _, name := range []string{"istiod-lite", "ztunnel", "tulle-agent"} {
		if _, err := os.Stat(filepath.Join(t.bin, name)); err != nil {
			return Running{}, fmt.Errorf("%w: %s: make build", ErrMissing, filepath.Join(t.bin, name))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	if t.state, err = os.MkdirTemp(t.dir, "tulle-"); err != nil {
		return Running{}, err
	}
	if t.key, err = t.startControlPlane(ctx, top); err != nil {
		return Running{}, err
	}
	key := t.key
	a, err := t.startNode(top.NodeA, key)
	if err != nil {
		return Running{}, err
	}
	b, err := t.startNode(top.NodeB, key)
	if err != nil {
		return Running{}, err
	}
	for i, ns := range []*topology.Namespace{top.Client, top.Server} {
		pod := pods[i]
		err := enrol(ctx, t.path(pod.node, "agent.sock"), pod.uid, podRequest{
			Name: pod.name, Namespace: podNamespace, ServiceAccount: pod.account, NetnsPath: ns.Path,
		})
		if err != nil {
			return Running{}, fmt.Errorf("enrol %s: %w", pod.name, err)
		}
	}
	return Running{
		Addr:    at(topology.ServerAddr, load.Port),
		Proxies: []int{a, b},
		Goroutines: func() (int, error) {
			ga, err := goroutines(top.NodeA)
			if err != nil {
				return 0, err
			}
			gb, err := goroutines(top.NodeB)
			return ga + gb, err
		},
	}, nil
}

// Stop implements Variant.
func (t *Tulle) Stop() {
	t.processes.Stop()
	os.RemoveAll(t.state)
}

// proofs are what the access log of the receiving ztunnel says of a connection
// that went through the mesh: who spoke to whom, on which carrier.
func (t *Tulle) proofs() []string {
	identity := func(key, account string) string {
		return fmt.Sprintf(" %s=%q", key, "spiffe://"+trustDomain+"/ns/"+podNamespace+"/sa/"+account)
	}
	return []string{
		identity("src.identity", pods[0].account), identity("dst.identity", pods[1].account),
		fmt.Sprintf(" carrier=%q", t.carrier), ` direction="inbound"`,
	}
}

// Check implements Checker: figures of a path that is not encrypted would be worth nothing.
func (t *Tulle) Check() error {
	log, err := os.ReadFile(t.logFile("ztunnel", topology.NodeB))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(log)) {
		missing := slices.ContainsFunc(t.proofs(), func(p string) bool { return !strings.Contains(line, p) })
		if strings.Contains(line, "\tconnection complete\t") && !missing {
			return nil
		}
	}
	return fmt.Errorf("no connection in the access log of %s has%s: the bytes did not go through the mesh",
		topology.NodeB, strings.Join(t.proofs(), ""))
}

func (t *Tulle) path(parts ...string) string {
	return filepath.Join(append([]string{t.state}, parts...)...)
}

// objects describe the pods to the control plane.
const objects = `apiVersion: v1
kind: Namespace
metadata:
  name: ` + podNamespace + `
  labels: {istio.io/dataplane-mode: ambient}
`

const podObject = `---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: ` + podNamespace + `, uid: %[2]s, labels: {app: %[1]s}}
spec: {nodeName: %[4]s, serviceAccountName: %[3]s, containers: [{name: main}]}
status:
  phase: Running
  podIP: %[5]s
  podIPs: [{ip: %[5]s}]
  conditions: [{type: Ready, status: "True"}]
`

func (t *Tulle) startControlPlane(ctx context.Context, top *topology.Topology) (*nodetoken.Key, error) {
	key, err := nodetoken.GenerateKey()
	if err != nil {
		return nil, err
	}
	public, err := key.PublicPEM()
	if err != nil {
		return nil, err
	}
	text := []byte(objects)
	for _, p := range pods {
		text = fmt.Appendf(text, podObject, p.name, p.uid, p.account, p.node, p.addr)
	}
	text = append(text, t.objects...)
	if err := os.Mkdir(t.path("config"), 0o755); err != nil {
		return nil, err
	}
	for path, content := range map[string][]byte{t.path("token.pub"): public, t.path("config", "bench.yaml"): text} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	_, err = t.start(top.Control, nil, filepath.Join(t.bin, "istiod-lite"),
		"--config-dir", t.path("config"), "--state-dir", t.path("authority"),
		"--listen", ":"+strconv.Itoa(portXDS), "--token-key", t.path("token.pub"), "--trust-domain", trustDomain)
	if err != nil {
		return nil, err
	}
	// The proxies want to read the root when they start.
	return key, await(ctx, "the root certificate of istiod-lite", func() error {
		_, err := os.Stat(t.path("authority", "root-cert.pem"))
		return err
	})
}

// startNode starts a node's agent and ztunnel and returns the process id of the latter.
func (t *Tulle) startNode(ns *topology.Namespace, key *nodetoken.Key) (int, error) {
	token, err := nodetoken.Mint(key, nodetoken.Claims{
		Namespace: "istio-system", ServiceAccount: "ztunnel",
		PodName: "ztunnel-" + ns.Name, PodUID: "00000000-0000-4000-8000-00000000000" + ns.Name[len(ns.Name)-1:], Node: ns.Name,
	}, 24*time.Hour)
	if err != nil {
		return 0, err
	}
	if err := os.Mkdir(t.path(ns.Name), 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(t.path(ns.Name, "token"), []byte(token), 0o600); err != nil {
		return 0, err
	}
	_, err = t.start(ns, nil, filepath.Join(t.bin, "tulle-agent"),
		"--zds-socket", t.path(ns.Name, "zds.sock"), "--api-socket", t.path(ns.Name, "agent.sock"),
		"--state-dir", t.path(ns.Name, "agent"))
	if err != nil {
		return 0, err
	}
	return t.start(ns, nil, filepath.Join(t.bin, "ztunnel"),
		"--xds-address", at(topology.ControlAddr, portXDS), "--server-name", serverName,
		"--root-cert", t.path("authority", "root-cert.pem"), "--token-file", t.path(ns.Name, "token"),
		"--node", ns.Name, "--trust-domain", trustDomain, "--zds-socket", t.path(ns.Name, "zds.sock"),
		// Short, so that a round ends soon: nothing is carried any more by then.
		"--drain-deadline", "1s", "--carrier", t.carrier)
}
