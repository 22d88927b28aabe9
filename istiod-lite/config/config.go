// Package config is istiod-lite's settings: one struct, filled from the command
// line, checked once and not changed afterwards.
package config

import (
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
	// ConfigDir is the directory, or file, of the mesh's objects.
	ConfigDir string
	// StateDir holds the authority; it is made, mode 0700, when it is missing.
	StateDir string
	// Listen is the address of xDS and CA.
	Listen string
	// Admin is the address of metrics, readiness and debugging. It must be a
	// loopback address: what it shows is for this machine.
	Admin string
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
}

// maxDebounce keeps the promise that a change leaves within 100 ms of the first
// of its burst; reading the files and translating take the rest.
const maxDebounce = 80 * time.Millisecond

// Default returns the settings that apply unless others are given.
func Default() Config {
	return Config{
		Listen:        ":15012",
		Admin:         "localhost:15014",
		TrustDomain:   "cluster.local",
		ClusterID:     "Kubernetes",
		RootNamespace: "istio-system",
		DomainSuffix:  "cluster.local",
		NodeAccounts:  []string{"istio-system/ztunnel"},
		ServerNames:   []string{"istiod.istio-system.svc", "localhost", "127.0.0.1", "::1"},
		Debounce:      25 * time.Millisecond,
		DrainDeadline: 5 * time.Second,
		LogLevel:      "info",
		LogFormat:     "text",
	}
}

// Flags binds c's settings to flags of fs, with c's values as defaults.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.ConfigDir, "config-dir", c.ConfigDir, "directory or file of Kubernetes and Istio objects (required)")
	fs.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of the certificate authority (required)")
	fs.StringVar(&c.Listen, "listen", c.Listen, "address of xDS and CA, TLS")
	fs.StringVar(&c.Admin, "admin", c.Admin, "loopback address of /metrics, /healthz/ready and /debug")
	fs.Var(&list{values: &c.TokenKeys}, "token-key", "file of a public key (PEM) that signs node tokens; may be repeated (required)")
	fs.StringVar(&c.TrustDomain, "trust-domain", c.TrustDomain, "trust domain of the mesh's identities")
	fs.StringVar(&c.ClusterID, "cluster-id", c.ClusterID, "name of the cluster")
	fs.StringVar(&c.Network, "network", c.Network, "network of addresses that do not say otherwise")
	fs.StringVar(&c.RootNamespace, "root-namespace", c.RootNamespace, "namespace of mesh-wide policies")
	fs.StringVar(&c.DomainSuffix, "domain-suffix", c.DomainSuffix, "end of the names of services")
	fs.Var(&list{values: &c.NodeAccounts}, "node-accounts", "service account of node proxies, namespace/name; may be repeated or comma-separated")
	fs.Var(&list{values: &c.ServerNames}, "server-name", "DNS name or IP address of the server's certificate; may be repeated or comma-separated")
	fs.StringVar(&c.RootOut, "root-out", c.RootOut, "file to write the root certificates to (default root-cert.pem in --state-dir)")
	fs.DurationVar(&c.Debounce, "debounce", c.Debounce, "how long the first change of a burst waits for others, at most 80ms")
	fs.DurationVar(&c.DrainDeadline, "drain-deadline", c.DrainDeadline, "how long a shutdown waits for calls under way")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "error, warn, info or debug; scope:level for one scope")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
}

// Validate returns every mistake, each naming its flag.
func (c Config) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ConfigDir == "" {
		fail("--config-dir is required")
	}
	if c.StateDir == "" {
		fail("--state-dir is required")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fail("--listen %q: %v", c.Listen, err)
	}
	if host, _, err := net.SplitHostPort(c.Admin); err != nil {
		fail("--admin %q: %v", c.Admin, err)
	} else if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		fail("--admin %q: must be localhost or a loopback address", c.Admin)
	}
	if len(c.TokenKeys) == 0 {
		fail("--token-key is required: without it no proxy could prove who it is")
	}
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
	if len(c.ServerNames) == 0 {
		fail("--server-name is required: clients check the certificate for it")
	}
	if c.Debounce < 0 || c.Debounce > maxDebounce {
		fail("--debounce %v: must be between 0 and %v", c.Debounce, maxDebounce)
	}
	if c.DrainDeadline < 0 {
		fail("--drain-deadline %v: must not be negative", c.DrainDeadline)
	}
	return errors.Join(errs...)
}

// RootFile is where the root certificates are written.
func (c Config) RootFile() string {
	if c.RootOut != "" {
		return c.RootOut
	}
	return filepath.Join(c.StateDir, "root-cert.pem")
}

// ServerSANs parts ServerNames into DNS names and addresses.
func (c Config) ServerSANs() (names []string, addresses []netip.Addr) {
	for _, n := range c.ServerNames {
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
