package app

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/ztunnel/agent/hostprobe"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

// Config are the settings of the node agent.
type Config struct {
	// ZDSSocket is where the proxy connects.
	ZDSSocket string
	// APISocket is where pods are enrolled and removed.
	APISocket string
	// StateDir remembers enrolled pods until the next boot.
	StateDir string
	// MetricsAddr serves /metrics and /healthz/ready; empty: nowhere.
	MetricsAddr string
	// Rules is the variant of rules for every pod.
	Rules redirect.Config
	// DrainDeadline is how long captured connections of a pod that left may go on;
	// zero means as long as ztunnel/agent/enrol says.
	DrainDeadline time.Duration
	// Kubernetes is nil for an agent that is told of pods through its API alone.
	Kubernetes *KubernetesConfig
	// Clean takes the node out of the mesh and ends, instead of serving it.
	Clean bool
	// LogLevel and LogFormat are those of internal/logging.
	LogLevel, LogFormat string
	// LogOutput is standard error when nil.
	LogOutput io.Writer
}

// KubernetesConfig are the settings of an agent that follows Kubernetes.
type KubernetesConfig struct {
	// Kubeconfig is the file that says how to reach the API server; empty: as a pod
	// of the cluster.
	Kubeconfig string
	// Node is the name of the node.
	Node string
	// Exclude are the namespaces whose pods never belong to the mesh.
	Exclude []string
	// Namespace and DaemonSet name what the agent belongs to; when that is deleted,
	// the agent's end takes the node out of the mesh.
	Namespace, DaemonSet string
	// ConfDir and BinDir are the runtime's directories of CNI.
	ConfDir, BinDir string
	// Proc shows all processes of the node, Netns their mounted network namespaces.
	Proc, Netns string
}

// metricsOfNode is the port of the node where metrics are unless --metrics says
// otherwise: a DaemonSet's scrape and readiness probe need one.
const metricsOfNode = ":15019"

// hostProc is where the agent's pod has the node's /proc.
const hostProc = "/host/proc"

// Parse reads flags; each may come from the environment instead, as
// TULLE_AGENT_ and the flag's name in capitals with underscores. Help and errors
// of the command line go to output. flag.ErrHelp means that help was asked for.
// The word clean before the flags asks to take the node out of the mesh.
func Parse(args []string, getenv func(string) string, output io.Writer) (Config, error) {
	var cfg Config
	var probes, exclude string
	var kubernetes bool
	var k KubernetesConfig
	if len(args) > 0 && args[0] == "clean" {
		cfg.Clean, args = true, args[1:]
	}
	fs := flag.NewFlagSet("tulle-agent", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.StringVar(&cfg.ZDSSocket, "zds-socket", "/var/run/ztunnel/ztunnel.sock", "`path` of the unix socket where ztunnel connects")
	fs.StringVar(&cfg.APISocket, "api-socket", "/var/run/tulle/agent.sock", "`path` of the unix socket where pods are enrolled and removed")
	fs.StringVar(&cfg.StateDir, "state-dir", "/var/run/tulle/agent", "`directory` that remembers enrolled pods; need not outlive a reboot")
	fs.StringVar(&cfg.MetricsAddr, "metrics", "", "`host:port` for /metrics and /healthz/ready (default: nowhere)")
	fs.StringVar(&probes, "probe-sources", "", "comma-separated source `addresses` of kubelet probes, which reach pods past the mesh")
	fs.DurationVar(&cfg.DrainDeadline, "drain-deadline", 0, "how long captured connections of a pod that left the mesh may go on (default 5m)")
	fs.BoolVar(&kubernetes, "kubernetes", false, "follow a Kubernetes cluster: its labels say which pods of the node are in the mesh")
	fs.StringVar(&k.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the Kubernetes API (default: as a pod of the cluster)")
	fs.StringVar(&k.Node, "node", getenv("NODE_NAME"), "`name` of this node in Kubernetes (default: environment NODE_NAME)")
	fs.StringVar(&exclude, "exclude-namespaces", "istio-system,kube-system", "comma-separated `namespaces` whose pods are never in the mesh and start without the agent")
	fs.StringVar(&k.Namespace, "namespace", getenv("POD_NAMESPACE"), "`namespace` of the agent's DaemonSet (default: environment POD_NAMESPACE)")
	fs.StringVar(&k.DaemonSet, "daemonset", "tulle-agent", "`name` of the agent's DaemonSet; when it is deleted, the agent's end takes the node out of the mesh")
	fs.StringVar(&k.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` of the container runtime's CNI configuration")
	fs.StringVar(&k.BinDir, "cni-bin-dir", "/opt/cni/bin", "`directory` of CNI plugins")
	fs.StringVar(&k.Proc, "proc", "", "`directory` that shows all processes of the node (default "+hostProc+" where that is mounted, else /proc)")
	fs.StringVar(&k.Netns, "netns-dir", "/var/run/netns", "`directory` where the container runtime mounts network namespaces")
	fs.StringVar(&cfg.LogLevel, "log-level", "info", "`level`, or logger:level, several separated by commas")
	fs.StringVar(&cfg.LogFormat, "log-format", "text", "text or json")
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := "TULLE_AGENT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v := getenv(name); v != "" && !set[f.Name] {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("environment %s: %w", name, err))
			}
		}
	})
	if fs.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}
	if probes != "" {
		for s := range strings.SplitSeq(probes, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(s))
			if err != nil {
				errs = append(errs, fmt.Errorf("--probe-sources: %w", err))
			}
			cfg.Rules.ProbeSources = append(cfg.Rules.ProbeSources, a)
		}
	}
	if kubernetes || cfg.Clean {
		for s := range strings.SplitSeq(exclude, ",") {
			if s = strings.TrimSpace(s); s != "" {
				k.Exclude = append(k.Exclude, s)
			}
		}
		if k.Proc == "" {
			k.Proc = "/proc"
			if _, err := os.Stat(hostProc + "/self"); err == nil {
				k.Proc = hostProc
			}
		}
		cfg.Kubernetes = &k
	}
	if kubernetes {
		if k.Node == "" {
			errs = append(errs, errors.New("--node is empty, and so is the environment NODE_NAME"))
		}
		if cfg.MetricsAddr == "" {
			cfg.MetricsAddr = metricsOfNode
		}
		if probes == "" {
			cfg.Rules.ProbeSources = hostprobe.Sources()
		}
	}
	for name, value := range map[string]string{"--zds-socket": cfg.ZDSSocket, "--api-socket": cfg.APISocket, "--state-dir": cfg.StateDir} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", name))
		}
	}
	return cfg, errors.Join(errs...)
}
