package config_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/waypoint/config"
)

func files(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--gateway", "front", "--pod-namespace", "shop", "--service-account", "front", "--root-cert", path, "--token-file", path}
}

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestDefaultsFollowOtherSettings(t *testing.T) {
	c, err := config.Parse(append(files(t), "--xds-address", "cp.example:15012"), env(nil), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.CAAddress != "cp.example:15012" || c.ServerName != "cp.example" || c.PodName != "front" {
		t.Errorf("CAAddress %q, ServerName %q, PodName %q", c.CAAddress, c.ServerName, c.PodName)
	}
	if id, err := c.Identity(); err != nil || id.String() != "spiffe://cluster.local/ns/shop/sa/front" {
		t.Errorf("identity %v, %v", id, err)
	}
}

func TestFlagsWinOverEnvironment(t *testing.T) {
	vars := map[string]string{"XDS_ADDRESS": "https://env.example:15012", "CLUSTER_ID": "west"}
	c, err := config.Parse(append(files(t), "--cluster-id", "east"), env(vars), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.XDSAddress != "env.example:15012" || c.ClusterID != "east" {
		t.Errorf("XDSAddress %q, ClusterID %q", c.XDSAddress, c.ClusterID)
	}
}

func TestErrorsNameTheSetting(t *testing.T) {
	ok := files(t)
	for _, tc := range []struct {
		name string
		args []string
		env  map[string]string
		want string
	}{
		{"no Gateway", ok[2:], nil, "--gateway (GATEWAY_NAME)"},
		{"bad address", append(ok, "--xds-address", "nowhere"), nil, "--xds-address (XDS_ADDRESS)"},
		{"missing file", append(ok, "--token-file", "/nonexistent/token"), nil, "--token-file (AUTH_TOKEN)"},
		{"bad account", append(ok, "--service-account", "a/b"), nil, "--service-account (SERVICE_ACCOUNT)"},
		{"bad own address", append(ok, "--instance-ip", "here"), nil, "--instance-ip (INSTANCE_IP)"},
		{"bad trust domain", append(ok, "--trust-domain", "Not A Domain"), nil, "--trust-domain (TRUST_DOMAIN)"},
		{"negative duration", append(ok, "--connect-timeout", "-1s"), nil, "--connect-timeout"},
		{"bad variable", ok, map[string]string{"TERMINATION_DRAIN_DURATION": "soon"}, "TERMINATION_DRAIN_DURATION"},
		{"unknown flag", append(ok, "--fast"), nil, "-fast"},
		{"stray argument", append(ok, "extra"), nil, `"extra"`},
	} {
		_, err := config.Parse(tc.args, env(tc.env), io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v does not name %s", tc.name, err, tc.want)
		}
	}
}

func TestHelpListsEverySetting(t *testing.T) {
	var out bytes.Buffer
	if _, err := config.Parse([]string{"--help"}, env(nil), &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("error %v, want ErrHelp", err)
	}
	for _, name := range []string{"-gateway", "-listen", "-drain-deadline", "-memory-limit"} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("help does not list %s", name)
		}
	}
}
