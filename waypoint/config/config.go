package config

import (
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/settings"
)

// Config is how one waypoint runs. Defaults gives the documented defaults.
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
	// TokenFile holds the bearer token of the waypoint's own service account; it is
	// read again for every call.
	TokenFile string

	// Gateway is the name of the Gateway that the waypoint runs for, in PodNamespace.
	// Required.
	Gateway string
	// PodName, PodNamespace and ServiceAccount are the waypoint's own. PodNamespace and
	// ServiceAccount are required: they are its identity.
	PodName, PodNamespace, ServiceAccount string
	// Node is where it runs, for the choice of near endpoints.
	Node string
	// InstanceIP is the pod's address, for the control plane.
	InstanceIP string
	// ClusterID, TrustDomain and Network say where in the mesh the waypoint is.
	// Defaults: Kubernetes, cluster.local, the empty (default) network.
	ClusterID, TrustDomain, Network string

	// ListenAddr takes tunnels. Default ":15008", which clients dial.
	ListenAddr string
	// AdminAddr is loopback only (15000). MetricsAddr (15020) and ReadinessAddr
	// (15021) are scraped and probed from outside.
	AdminAddr, MetricsAddr, ReadinessAddr string

	// ConnectTimeout bounds dialling an endpoint, with the TLS handshake. Default 10 s.
	ConnectTimeout time.Duration
	// HandshakeTimeout bounds the TLS handshake of an accepted tunnel. Default 10 s.
	HandshakeTimeout time.Duration
	// DrainDeadline is how long requests may go on after SIGTERM before they are
	// broken off. Default 20 s: Kubernetes kills after 30.
	DrainDeadline time.Duration

	// LogFormat is text or json; LogLevel as in logging.Levels. Defaults text, info.
	LogFormat, LogLevel string
	// MemoryLimit is the soft limit of Go's heap in bytes; 0 leaves it to GOMEMLIMIT.
	MemoryLimit int64
}

// Defaults returns a Config with every default; who the waypoint is is missing.
func Defaults() Config {
	return Config{
		XDSAddress:       "istiod.istio-system.svc:15012",
		RootCert:         "/var/run/secrets/istio/root-cert.pem",
		TokenFile:        "/var/run/secrets/tokens/istio-token",
		ClusterID:        "Kubernetes",
		TrustDomain:      "cluster.local",
		ListenAddr:       ":15008",
		AdminAddr:        "localhost:15000",
		MetricsAddr:      ":15020",
		ReadinessAddr:    ":15021",
		ConnectTimeout:   10 * time.Second,
		HandshakeTimeout: 10 * time.Second,
		DrainDeadline:    20 * time.Second,
		LogFormat:        "text",
		LogLevel:         "info",
	}
}

// Identity is who the waypoint is in the mesh.
func (c Config) Identity() (spiffeid.ID, error) {
	td, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(td, "ns", c.PodNamespace, "sa", c.ServiceAccount)
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
		c.PodName = c.Gateway
	}
	return c.validate()
}

// validate reports every setting that cannot work, so that one start shows them all.
func (c *Config) validate() error {
	checks := settings.NewChecks(environment)
	checks.Addresses(map[string]string{
		"xds-address": c.XDSAddress, "ca-address": c.CAAddress, "listen": c.ListenAddr, "admin": c.AdminAddr,
		"metrics": c.MetricsAddr, "readiness": c.ReadinessAddr,
	})
	checks.Required(map[string]string{
		"gateway": c.Gateway, "pod-namespace": c.PodNamespace, "service-account": c.ServiceAccount, "cluster-id": c.ClusterID,
	})
	checks.TrustDomain("trust-domain", c.TrustDomain)
	if _, err := spiffeid.TrustDomainFromString(c.TrustDomain); err == nil && c.PodNamespace != "" && c.ServiceAccount != "" {
		if _, err := c.Identity(); err != nil {
			checks.Wrong("service-account", "%v", err)
		}
	}
	checks.IP("instance-ip", c.InstanceIP)
	checks.Files(map[string]string{"root-cert": c.RootCert, "token-file": c.TokenFile})
	checks.Durations(map[string]time.Duration{
		"connect-timeout": c.ConnectTimeout, "handshake-timeout": c.HandshakeTimeout, "drain-deadline": c.DrainDeadline,
	}, "drain-deadline")
	checks.LogFormat("log-format", c.LogFormat)
	if c.MemoryLimit < 0 {
		checks.Wrong("memory-limit", "%d is negative", c.MemoryLimit)
	}
	return checks.Err()
}
