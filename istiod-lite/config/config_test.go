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
		"--server-name":    func(c *config.Config) { c.ServerNames = nil },
		"--debounce":       func(c *config.Config) { c.Debounce = 100 * time.Millisecond },
		"--drain-deadline": func(c *config.Config) { c.DrainDeadline = -1 },
	} {
		c := parse(t, required...)
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
