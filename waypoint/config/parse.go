package config

import (
	"flag"
	"io"

	"github.com/tulle-mesh/tulle/internal/settings"
)

// environment names the variable behind a flag, as Istio's proxies know it.
var environment = settings.Environment{
	"xds-address":     "XDS_ADDRESS",
	"ca-address":      "CA_ADDRESS",
	"server-name":     "ALT_XDS_HOSTNAME",
	"root-cert":       "XDS_ROOT_CA",
	"token-file":      "AUTH_TOKEN",
	"gateway":         "GATEWAY_NAME",
	"pod-name":        "POD_NAME",
	"pod-namespace":   "POD_NAMESPACE",
	"service-account": "SERVICE_ACCOUNT",
	"node":            "NODE_NAME",
	"instance-ip":     "INSTANCE_IP",
	"cluster-id":      "CLUSTER_ID",
	"trust-domain":    "TRUST_DOMAIN",
	"network":         "NETWORK",
	"log-format":      "LOG_FORMAT",
	"drain-deadline":  "TERMINATION_DRAIN_DURATION",
}

// flags binds every setting of c to its flag.
func (c *Config) flags(out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("waypoint", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&c.XDSAddress, "xds-address", c.XDSAddress, "host:port of the control plane")
	fs.StringVar(&c.CAAddress, "ca-address", c.CAAddress, "host:port of the certificate authority (default: --xds-address)")
	fs.StringVar(&c.ServerName, "server-name", c.ServerName, "name in the control plane's certificate (default: host of --xds-address)")
	fs.StringVar(&c.RootCert, "root-cert", c.RootCert, "PEM file with the control plane's roots")
	fs.StringVar(&c.TokenFile, "token-file", c.TokenFile, "file with the bearer token for the control plane, read for every call")
	fs.StringVar(&c.Gateway, "gateway", c.Gateway, "Gateway that the waypoint runs for, in --pod-namespace")
	fs.StringVar(&c.PodName, "pod-name", c.PodName, "the waypoint's own pod (default: --gateway)")
	fs.StringVar(&c.PodNamespace, "pod-namespace", c.PodNamespace, "namespace of the waypoint's own pod")
	fs.StringVar(&c.ServiceAccount, "service-account", c.ServiceAccount, "the waypoint's own service account")
	fs.StringVar(&c.Node, "node", c.Node, "node that the waypoint runs on")
	fs.StringVar(&c.InstanceIP, "instance-ip", c.InstanceIP, "address of the waypoint's own pod")
	fs.StringVar(&c.ClusterID, "cluster-id", c.ClusterID, "cluster that the waypoint belongs to")
	fs.StringVar(&c.TrustDomain, "trust-domain", c.TrustDomain, "trust domain of the mesh")
	fs.StringVar(&c.Network, "network", c.Network, "network that the waypoint belongs to")
	fs.StringVar(&c.ListenAddr, "listen", c.ListenAddr, "where tunnels come in")
	fs.StringVar(&c.AdminAddr, "admin", c.AdminAddr, "admin interface; loopback only")
	fs.StringVar(&c.MetricsAddr, "metrics", c.MetricsAddr, "Prometheus metrics")
	fs.StringVar(&c.ReadinessAddr, "readiness", c.ReadinessAddr, "readiness probe")
	fs.DurationVar(&c.ConnectTimeout, "connect-timeout", c.ConnectTimeout, "limit for dialling an endpoint")
	fs.DurationVar(&c.HandshakeTimeout, "handshake-timeout", c.HandshakeTimeout, "limit for the TLS handshake of an accepted tunnel")
	fs.DurationVar(&c.DrainDeadline, "drain-deadline", c.DrainDeadline, "how long requests may go on after SIGTERM")
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
