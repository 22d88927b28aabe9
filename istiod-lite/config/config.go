// Package config is istiod-lite's settings: one struct, filled from the command
// line, checked once and not changed afterwards.
package config

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config holds the settings. Default returns those that need none.
type Config struct {
	// ConfigDir is the directory, or file, of the mesh's objects. It is how a
	// mesh without a cluster is told; with Kubernetes it is empty, as are
	// StateDir, TokenKeys and RootOut.
	ConfigDir string
	// StateDir holds the authority; it is made, mode 0700, when it is missing.
	StateDir string
	// Kubernetes are the settings of a mesh in a cluster.
	Kubernetes Kubernetes
	// Listen is the address of xDS and CA.
	Listen string
	// Admin is the address of metrics, readiness and debugging. It must be a
	// loopback address: what it shows is for this machine. Empty means
	// DefaultAdmin, or DefaultClusterAdmin in a cluster.
	Admin string
	// Metrics is an address of metrics and health only, for others to reach.
	// Empty means none, or DefaultMetrics in a cluster.
	Metrics string
	// TokenKeys are the files of public keys that sign node tokens.
	TokenKeys []string
	// TrustDomain and ClusterID name the mesh and the cluster.
	TrustDomain string
	ClusterID   string
	// Network is that of addresses which do not say otherwise.
	Network string
	// RootNamespace holds mesh-wide policies.
	RootNamespace string
	// DomainSuffix ends the names of services.
	DomainSuffix string
	// NodeAccounts are the service accounts of node proxies, as namespace/name:
	// only they may subscribe, and ask for certificates of others.
	NodeAccounts []string
	// ServerNames are the DNS names and IP addresses of the server's certificate.
	// Empty means those of the local mesh, or in a cluster those of the Service
	// istiod in the pod's namespace.
	ServerNames []string
	// RootOut is where the root certificates are written for clients to trust.
	// Empty means root-cert.pem in StateDir.
	RootOut string
	// Debounce is how long the first change of a burst waits for others.
	Debounce time.Duration
	// DrainDeadline is how long a shutdown waits for calls under way.
	DrainDeadline time.Duration
	// LogLevel and LogFormat are those of internal/logging.
	LogLevel  string
	LogFormat string
	// Waypoints are the settings of the waypoints that a cluster runs.
	Waypoints Waypoints
}

// maxDebounce keeps the promise that a change leaves within 100 ms of the first
// of its burst; reading the files and translating take the rest.
const maxDebounce = 80 * time.Millisecond

// Default returns the settings that apply unless others are given.
func Default() Config {
	return Config{
		Listen:        ":15012",
		TrustDomain:   "cluster.local",
		ClusterID:     "Kubernetes",
		RootNamespace: "istio-system",
		DomainSuffix:  "cluster.local",
		NodeAccounts:  []string{"istio-system/ztunnel"},
		Kubernetes:    Kubernetes{PodNamespace: "istio-system"},
		Debounce:      25 * time.Millisecond,
		DrainDeadline: 5 * time.Second,
		LogLevel:      "info",
		LogFormat:     "text",
		Waypoints:     Waypoints{ImagePullPolicy: "IfNotPresent"},
	}
}

// Flags binds c's settings to flags of fs, with c's values as defaults.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.ConfigDir, "config-dir", c.ConfigDir, "directory or file of Kubernetes and Istio objects (required without --kubernetes)")
	fs.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of the certificate authority (required without --kubernetes)")
	c.Kubernetes.flags(fs)
	fs.StringVar(&c.Listen, "listen", c.Listen, "address of xDS and CA, TLS")
	fs.StringVar(&c.Admin, "admin", c.Admin, "loopback address of /metrics, /healthz/ready and /debug (default "+DefaultAdmin+", with --kubernetes "+DefaultClusterAdmin+")")
	fs.StringVar(&c.Metrics, "metrics", c.Metrics, "address of /metrics, /healthz/ready and /healthz/live (default none, with --kubernetes "+DefaultMetrics+")")
	fs.Var(&list{values: &c.TokenKeys}, "token-key", "file of a public key (PEM) that signs node tokens; may be repeated (required without --kubernetes)")
	fs.StringVar(&c.TrustDomain, "trust-domain", c.TrustDomain, "trust domain of the mesh's identities")
	fs.StringVar(&c.ClusterID, "cluster-id", c.ClusterID, "name of the cluster")
	fs.StringVar(&c.Network, "network", c.Network, "network of addresses that do not say otherwise")
	fs.StringVar(&c.RootNamespace, "root-namespace", c.RootNamespace, "namespace of mesh-wide policies")
	fs.StringVar(&c.DomainSuffix, "domain-suffix", c.DomainSuffix, "end of the names of services")
	fs.Var(&list{values: &c.NodeAccounts}, "node-accounts", "service account of node proxies, namespace/name; may be repeated or comma-separated")
	fs.Var(&list{values: &c.ServerNames}, "server-name", "DNS name or IP address of the server's certificate; may be repeated or comma-separated (default istiod.istio-system.svc and this machine's, with --kubernetes the names of the Service istiod)")
	fs.StringVar(&c.RootOut, "root-out", c.RootOut, "file to write the root certificates to (default root-cert.pem in --state-dir)")
	fs.DurationVar(&c.Debounce, "debounce", c.Debounce, "how long the first change of a burst waits for others, at most 80ms")
	fs.DurationVar(&c.DrainDeadline, "drain-deadline", c.DrainDeadline, "how long a shutdown waits for calls under way")
	c.Waypoints.flags(fs)
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "error, warn, info or debug; scope:level for one scope")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
}

// Validate returns every mistake, each naming its flag.
func (c Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Kubernetes.Enabled {
		c.validateKubernetes(fail)
	} else {
		c.validateFiles(fail)
	}
	c.validateAddresses(fail)
	c.Waypoints.validate(c.Kubernetes.Enabled, fail)
	if td, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
		fail("--trust-domain %q: %v", c.TrustDomain, err)
	} else if td.Name() != c.TrustDomain { // it takes a whole ID too
		fail("--trust-domain %q: must be the name alone, as %s", c.TrustDomain, td.Name())
	}
	for _, v := range []struct{ flag, value string }{
		{"--cluster-id", c.ClusterID}, {"--root-namespace", c.RootNamespace}, {"--domain-suffix", c.DomainSuffix},
	} {
		if v.value == "" || strings.ContainsAny(v.value, "/ \t\n") {
			fail("%s %q: must be a name without slashes or spaces", v.flag, v.value)
		}
	}
	if strings.ContainsAny(c.Network, "/ \t\n") {
		fail("--network %q: must be a name without slashes or spaces", c.Network)
	}
	if len(c.NodeAccounts) == 0 {
		fail("--node-accounts is required: without it no proxy may subscribe")
	}
	for _, a := range c.NodeAccounts {
		if ns, name, ok := strings.Cut(a, "/"); !ok || ns == "" || name == "" || strings.Contains(name, "/") {
			fail("--node-accounts %q: must be namespace/name", a)
		}
	}
	if c.Debounce < 0 || c.Debounce > maxDebounce {
		fail("--debounce %v: must be between 0 and %v", c.Debounce, maxDebounce)
	}
	if c.DrainDeadline < 0 {
		fail("--drain-deadline %v: must not be negative", c.DrainDeadline)
	}
	return errors.Join(errs...)
}

// validateFiles checks what a mesh without a cluster needs.
func (c Config) validateFiles(fail func(string, ...any)) {
	if c.ConfigDir == "" {
		fail("--config-dir is required (or --kubernetes, in a cluster)")
	}
	if c.StateDir == "" {
		fail("--state-dir is required")
	}
	if len(c.TokenKeys) == 0 {
		fail("--token-key is required: without it no proxy could prove who it is")
	}
	if c.Kubernetes.Kubeconfig != "" {
		fail("--kubeconfig %q: has no meaning without --kubernetes", c.Kubernetes.Kubeconfig)
	}
}

func (c Config) validateAddresses(fail func(string, ...any)) {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fail("--listen %q: %v", c.Listen, err)
	}
	adminHost, adminPort, err := net.SplitHostPort(c.AdminAddress())
	if err != nil {
		fail("--admin %q: %v", c.AdminAddress(), err)
	} else if a, err := netip.ParseAddr(adminHost); adminHost != "localhost" && (err != nil || !a.IsLoopback()) {
		fail("--admin %q: must be localhost or a loopback address", c.AdminAddress())
	}
	metrics := c.MetricsAddress()
	if metrics == "" {
		return
	}
	_, port, err := net.SplitHostPort(metrics)
	switch {
	case err != nil:
		fail("--metrics %q: %v", metrics, err)
	case port == adminPort && port != "0":
		fail("--metrics %q: is the port of --admin %q", metrics, c.AdminAddress())
	}
}

// Addresses that apply when none is given. In a cluster 15014 is where Istio's
// users look for the control plane's metrics, so that the admin interface goes
// where the node proxies have theirs.
const (
	DefaultAdmin        = "localhost:15014"
	DefaultClusterAdmin = "localhost:15000"
	DefaultMetrics      = ":15014"
)

// AdminAddress is where the admin interface listens.
func (c Config) AdminAddress() string {
	if c.Admin == "" && c.Kubernetes.Enabled {
		return DefaultClusterAdmin
	}
	return cmp.Or(c.Admin, DefaultAdmin)
}

// MetricsAddress is where others read metrics and health; empty when nowhere.
func (c Config) MetricsAddress() string {
	if c.Metrics == "" && c.Kubernetes.Enabled {
		return DefaultMetrics
	}
	return c.Metrics
}

// RootFile is where the root certificates are written.
func (c Config) RootFile() string {
	if c.RootOut != "" {
		return c.RootOut
	}
	return filepath.Join(c.StateDir, "root-cert.pem")
}

// ServerSANs parts the names of the server's certificate into DNS names and
// addresses.
func (c Config) ServerSANs() (names []string, addresses []netip.Addr) {
	all := c.ServerNames
	switch {
	case len(all) > 0:
	case c.Kubernetes.Enabled:
		all = c.Kubernetes.serviceNames(c.DomainSuffix)
	default:
		all = []string{"istiod.istio-system.svc", "localhost", "127.0.0.1", "::1"}
	}
	for _, n := range all {
		if a, err := netip.ParseAddr(n); err == nil {
			addresses = append(addresses, a)
		} else {
			names = append(names, n)
		}
	}
	return names, addresses
}

// list is a flag that may be repeated; the first use replaces the default.
type list struct {
	values *[]string
	set    bool
}

func (l *list) String() string {
	if l.values == nil {
		return ""
	}
	return strings.Join(*l.values, ",")
}

func (l *list) Set(s string) error {
	if !l.set {
		*l.values, l.set = nil, true
	}
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v == "" {
			return errors.New("an empty value")
		} else if !slices.Contains(*l.values, v) {
			*l.values = append(*l.values, v)
		}
	}
	return nil
}
