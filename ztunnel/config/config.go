package config

import (
	"net"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/internal/settings"
)

// Carrier is what tunnels run on.
type Carrier string

// The carriers. Auto is HTTP/2 on TLS today: it is the one that every peer of
// Istio ambient speaks, and no workload announces the other yet.
const (
	CarrierAuto Carrier = "auto"
	CarrierH2   Carrier = "h2"
	CarrierH3   Carrier = "h3"
)

// Config is how one ztunnel runs. Defaults gives the documented defaults.
type Config struct {
	// XDSAddress is host:port of the control plane (TLS, gRPC). Default istiod.istio-system.svc:15012.
	XDSAddress string
	// CAAddress is host:port of the certificate authority. Default: XDSAddress.
	CAAddress string
	// ServerName is the name that the control plane's certificate must carry.
	// Default: the host of XDSAddress.
	ServerName string
	// RootCert is the PEM file with the roots that the control plane's certificate is verified against.
	RootCert string
	// TokenFile holds the bearer token for the control plane; it is read again for every call.
	TokenFile string

	// Node is the name of the node that this ztunnel serves. Required.
	Node string
	// ClusterID, TrustDomain and Network say where in the mesh the node is.
	// Defaults: Kubernetes, cluster.local, the empty (default) network.
	ClusterID, TrustDomain, Network string
	// PodName, PodNamespace and InstanceIP describe ztunnel itself to the control plane.
	PodName, PodNamespace, InstanceIP string

	// ZDSSocket is where the node agent listens. Default /var/run/ztunnel/ztunnel.sock.
	ZDSSocket string
	// Carrier is what outbound tunnels run on. Default auto.
	Carrier Carrier
	// SameNodeEncrypt sends connections between two pods of this ztunnel through a
	// TLS tunnel as well, instead of splicing them in the process after the same
	// inbound decision. Default false.
	SameNodeEncrypt bool

	// AdminAddr is loopback only (15000). MetricsAddr (15020) and ReadinessAddr
	// (15021) are scraped and probed from outside.
	AdminAddr, MetricsAddr, ReadinessAddr string

	// WorkloadWait is how long a connection of a pod that the control plane has not
	// announced yet is held before it is refused. Default 5 s.
	WorkloadWait time.Duration
	// ConnectTimeout bounds dialling: TCP to an application or a peer, together with
	// the TLS handshake. Default 10 s.
	ConnectTimeout time.Duration
	// HandshakeTimeout bounds the TLS handshake of an accepted tunnel. Default 10 s.
	HandshakeTimeout time.Duration
	// TunnelIdle is how long a tunnel without streams is kept. Default 2 min.
	TunnelIdle time.Duration
	// DrainDeadline is how long connections may go on after SIGTERM and after their
	// pod was removed, before they are cut. Default 20 s: Kubernetes kills after 30.
	DrainDeadline time.Duration

	// LogFormat is text or json; LogLevel as in logging.Levels. Defaults text, info.
	LogFormat, LogLevel string
	// MemoryLimit is the soft limit of Go's heap in bytes; 0 leaves it to GOMEMLIMIT.
	MemoryLimit int64
}

// Defaults returns a Config with every default; Node and the files are missing.
func Defaults() Config {
	return Config{
		XDSAddress:       "istiod.istio-system.svc:15012",
		RootCert:         "/var/run/secrets/istio/root-cert.pem",
		TokenFile:        "/var/run/secrets/tokens/istio-token",
		ClusterID:        "Kubernetes",
		TrustDomain:      "cluster.local",
		PodNamespace:     "istio-system",
		ZDSSocket:        "/var/run/ztunnel/ztunnel.sock",
		Carrier:          CarrierAuto,
		AdminAddr:        "localhost:15000",
		MetricsAddr:      ":15020",
		ReadinessAddr:    ":15021",
		WorkloadWait:     5 * time.Second,
		ConnectTimeout:   10 * time.Second,
		HandshakeTimeout: 10 * time.Second,
		TunnelIdle:       2 * time.Minute,
		DrainDeadline:    20 * time.Second,
		LogFormat:        "text",
		LogLevel:         "info",
	}
}

// finish fills the defaults that depend on other settings and validates.
func (c *Config) finish() error {
	if c.CAAddress == "" {
		c.CAAddress = c.XDSAddress
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(c.XDSAddress)
	}
	if c.PodName == "" {
		c.PodName = "ztunnel-" + c.Node
	}
	return c.validate()
}

// validate reports every setting that cannot work, so that one start shows them all.
func (c *Config) validate() error {
	checks := settings.NewChecks(environment)
	checks.Addresses(map[string]string{
		"xds-address": c.XDSAddress, "ca-address": c.CAAddress, "admin": c.AdminAddr,
		"metrics": c.MetricsAddr, "readiness": c.ReadinessAddr,
	})
	if c.Node == "" {
		checks.Wrong("node", "is required: the name of the node that this ztunnel serves")
	}
	checks.Required(map[string]string{"cluster-id": c.ClusterID, "zds-socket": c.ZDSSocket})
	checks.TrustDomain("trust-domain", c.TrustDomain)
	checks.IP("instance-ip", c.InstanceIP)
	checks.Files(map[string]string{"root-cert": c.RootCert, "token-file": c.TokenFile})
	if !slices.Contains([]Carrier{CarrierAuto, CarrierH2, CarrierH3}, c.Carrier) {
		checks.Wrong("carrier", "%q is none of auto, h2, h3", c.Carrier)
	}
	checks.Durations(map[string]time.Duration{
		"workload-wait": c.WorkloadWait, "connect-timeout": c.ConnectTimeout, "handshake-timeout": c.HandshakeTimeout,
		"tunnel-idle": c.TunnelIdle, "drain-deadline": c.DrainDeadline,
	}, "workload-wait", "drain-deadline")
	checks.LogFormat("log-format", c.LogFormat)
	if c.MemoryLimit < 0 {
		checks.Wrong("memory-limit", "%d is negative", c.MemoryLimit)
	}
	return checks.Err()
}
