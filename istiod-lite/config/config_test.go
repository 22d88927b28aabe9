package config_test

import (
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/istiod-lite/config"
)

func parse(t *testing.T, args ...string) config.Config {
	t.Helper()
	c := config.Default()
	fs := flag.NewFlagSet("istiod-lite", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c
}

var required = []string{"--config-dir", "/c", "--state-dir", "/s", "--token-key", "/k"}

func TestDefaultsAreValid(t *testing.T) {
	c := parse(t, required...)
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if c.RootFile() != "/s/root-cert.pem" || c.Listen != ":15012" {
		t.Errorf("%+v", c)
	}
	names, addresses := c.ServerSANs()
	if len(names) != 2 || len(addresses) != 2 {
		t.Errorf("names %v, addresses %v", names, addresses)
	}
}

func TestListsReplaceTheirDefaultAndAddUp(t *testing.T) {
	c := parse(t, append([]string{"--server-name", "a,b", "--server-name", "10.0.0.1", "--node-accounts", "x/y"}, required...)...)
	if strings.Join(c.ServerNames, " ") != "a b 10.0.0.1" || strings.Join(c.NodeAccounts, " ") != "x/y" {
		t.Errorf("%v, %v", c.ServerNames, c.NodeAccounts)
	}
}

func TestEveryMistakeNamesItsFlag(t *testing.T) {
	for name, spoil := range map[string]func(*config.Config){
		"--config-dir":     func(c *config.Config) { c.ConfigDir = "" },
		"--state-dir":      func(c *config.Config) { c.StateDir = "" },
		"--listen":         func(c *config.Config) { c.Listen = "15012" },
		"--admin":          func(c *config.Config) { c.Admin = "0.0.0.0:15014" },
		"--token-key":      func(c *config.Config) { c.TokenKeys = nil },
		"--trust-domain":   func(c *config.Config) { c.TrustDomain = "spiffe://x/y" },
		"--cluster-id":     func(c *config.Config) { c.ClusterID = "a/b" },
		"--network":        func(c *config.Config) { c.Network = "a b" },
		"--root-namespace": func(c *config.Config) { c.RootNamespace = "" },
		"--domain-suffix":  func(c *config.Config) { c.DomainSuffix = "" },
		"--node-accounts":  func(c *config.Config) { c.NodeAccounts = []string{"ztunnel"} },
		"--debounce":       func(c *config.Config) { c.Debounce = 100 * time.Millisecond },
		"--drain-deadline": func(c *config.Config) { c.DrainDeadline = -1 },
		"--kubeconfig":     func(c *config.Config) { c.Kubernetes.Kubeconfig = "/k" },
		"--metrics":        func(c *config.Config) { c.Metrics = ":15014" }, // that of --admin
	} {
		c := parse(t, required...)
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClusterNeedsNoFlagButOne(t *testing.T) {
	c := config.Default()
	c.Environment(func(name string) string {
		return map[string]string{"POD_NAME": "istiod-1", "POD_NAMESPACE": "mesh"}[name]
	})
	fs := flag.NewFlagSet("istiod-lite", flag.ContinueOnError)
	c.Flags(fs)
	if err := fs.Parse([]string{"--kubernetes"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Kubernetes.PodName != "istiod-1" || c.Kubernetes.PodNamespace != "mesh" {
		t.Errorf("the pod is %+v", c.Kubernetes)
	}
	if c.AdminAddress() != "localhost:15000" || c.MetricsAddress() != ":15014" {
		t.Errorf("admin %s, metrics %s", c.AdminAddress(), c.MetricsAddress())
	}
	names, addresses := c.ServerSANs()
	if strings.Join(names, " ") != "istiod.mesh.svc istiod.mesh istiod.mesh.svc.cluster.local" || len(addresses) != 0 {
		t.Errorf("server's names %v, addresses %v", names, addresses)
	}
}

func TestFilesAndAClusterExcludeEachOther(t *testing.T) {
	c := parse(t, append([]string{"--kubernetes", "--root-out", "/r", "--pod-namespace", ""}, required...)...)
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, flag := range []string{"--config-dir", "--state-dir", "--token-key", "--root-out", "--pod-namespace"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%s is not complained of in: %v", flag, err)
		}
	}
	if c := parse(t, required...); c.AdminAddress() != "localhost:15014" || c.MetricsAddress() != "" {
		t.Errorf("without a cluster: admin %s, metrics %q", c.AdminAddress(), c.MetricsAddress())
	}
}
