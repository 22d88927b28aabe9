package config

import (
	"flag"
	"io"
	"time"

	"github.com/tulle-mesh/tulle/internal/settings"
)

// environment names the variable behind a flag, as Istio's ztunnel knows it.
var environment = settings.Environment{
	"xds-address":    "XDS_ADDRESS",
	"ca-address":     "CA_ADDRESS",
	"server-name":    "ALT_XDS_HOSTNAME",
	"root-cert":      "XDS_ROOT_CA",
	"token-file":     "AUTH_TOKEN",
	"node":           "NODE_NAME",
	"cluster-id":     "CLUSTER_ID",
	"trust-domain":   "TRUST_DOMAIN",
	"network":        "NETWORK",
	"pod-name":       "POD_NAME",
	"pod-namespace":  "POD_NAMESPACE",
	"instance-ip":    "INSTANCE_IP",
	"zds-socket":     "INPOD_UDS",
	"log-format":     "LOG_FORMAT",
	"drain-deadline": "CONNECTION_TERMINATION_DEADLINE",
}

// flags binds every setting of c to its flag.
func (c *Config) flags(out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("ztunnel", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&c.XDSAddress, "xds-address", c.XDSAddress, "host:port of the control plane")
	fs.StringVar(&c.CAAddress, "ca-address", c.CAAddress, "host:port of the certificate authority (default: --xds-address)")
	fs.StringVar(&c.ServerName, "server-name", c.ServerName, "name in the control plane's certificate (default: host of --xds-address)")
	fs.StringVar(&c.RootCert, "root-cert", c.RootCert, "PEM file with the control plane's roots")
	fs.StringVar(&c.TokenFile, "token-file", c.TokenFile, "file with the bearer token for the control plane, read for every call")
	fs.StringVar(&c.Node, "node", c.Node, "name of the node that this ztunnel serves")
	fs.StringVar(&c.ClusterID, "cluster-id", c.ClusterID, "cluster that the node belongs to")
	fs.StringVar(&c.TrustDomain, "trust-domain", c.TrustDomain, "trust domain of the mesh")
	fs.StringVar(&c.Network, "network", c.Network, "network that the node belongs to")
	fs.StringVar(&c.PodName, "pod-name", c.PodName, "ztunnel's own pod (default: ztunnel-NODE)")
	fs.StringVar(&c.PodNamespace, "pod-namespace", c.PodNamespace, "namespace of ztunnel's own pod")
	fs.StringVar(&c.InstanceIP, "instance-ip", c.InstanceIP, "address of ztunnel's own pod")
	fs.StringVar(&c.ZDSSocket, "zds-socket", c.ZDSSocket, "socket of the node agent")
	fs.StringVar((*string)(&c.Carrier), "carrier", string(c.Carrier), "what outbound tunnels run on: auto, h2 (TLS) or h3 (QUIC)")
	fs.BoolVar(&c.SameNodeEncrypt, "same-node-encrypt", c.SameNodeEncrypt, "tunnel connections between two pods of this node too, instead of splicing them")
	fs.StringVar(&c.AdminAddr, "admin", c.AdminAddr, "admin interface; loopback only")
	fs.StringVar(&c.MetricsAddr, "metrics", c.MetricsAddr, "Prometheus metrics")
	fs.StringVar(&c.ReadinessAddr, "readiness", c.ReadinessAddr, "readiness probe")
	fs.DurationVar(&c.WorkloadWait, "workload-wait", c.WorkloadWait, "how long a connection of a pod that the control plane has not announced is held")
	fs.DurationVar(&c.ConnectTimeout, "connect-timeout", c.ConnectTimeout, "limit for dialling a peer or an application")
	fs.DurationVar(&c.HandshakeTimeout, "handshake-timeout", c.HandshakeTimeout, "limit for the TLS handshake of an accepted tunnel")
	fs.DurationVar(&c.TunnelIdle, "tunnel-idle", c.TunnelIdle, "how long a tunnel without streams is kept")
	fs.DurationVar(&c.DrainDeadline, "drain-deadline", c.DrainDeadline, "how long connections may go on after SIGTERM or the removal of their pod")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "level, or level and logger:level, separated by commas")
	fs.Int64Var(&c.MemoryLimit, "memory-limit", c.MemoryLimit, "soft limit of the heap in bytes; 0 leaves it to GOMEMLIMIT")
	return fs
}

// Parse reads the settings from the environment and from args (without the
// program's name), fills defaults and validates. It returns flag.ErrHelp, with
// the usage written to out, when help was asked for.
func Parse(args []string, getenv func(string) string, out io.Writer) (Config, error) {
	c := Defaults()
	if err := settings.Parse(c.flags(out), environment, args, getenv); err != nil {
		return Config{}, err
	}
	if err := c.finish(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Dump is the settings as they are shown in config_dump; nothing in them is secret.
func (c Config) Dump() map[string]any {
	return map[string]any{
		"xdsAddress": c.XDSAddress, "caAddress": c.CAAddress, "serverName": c.ServerName,
		"rootCert": c.RootCert, "tokenFile": c.TokenFile,
		"localNode": c.Node, "clusterId": c.ClusterID, "trustDomain": c.TrustDomain, "network": c.Network,
		"zdsSocket": c.ZDSSocket, "carrier": c.Carrier, "sameNodeEncrypt": c.SameNodeEncrypt,
		"adminAddr": c.AdminAddr, "metricsAddr": c.MetricsAddr, "readinessAddr": c.ReadinessAddr,
		"workloadWait": text(c.WorkloadWait), "connectTimeout": text(c.ConnectTimeout),
		"handshakeTimeout": text(c.HandshakeTimeout), "tunnelIdle": text(c.TunnelIdle),
		"drainDeadline": text(c.DrainDeadline), "memoryLimit": c.MemoryLimit,
	}
}

func text(d time.Duration) string { return d.String() }
