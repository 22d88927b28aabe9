package app_test

import (
	"errors"
	"flag"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/ztunnel/agent/app"
	"github.com/tulle-mesh/tulle/ztunnel/agent/hostprobe"
	"github.com/tulle-mesh/tulle/ztunnel/redirect"
)

func TestParse(t *testing.T) {
	env := map[string]string{"TULLE_AGENT_API_SOCKET": "/env/api", "TULLE_AGENT_STATE_DIR": "/env/state"}
	got, err := app.Parse([]string{"--state-dir", "/flag/state", "--probe-sources", "169.254.7.127, fd16::1"},
		func(name string) string { return env[name] }, io.Discard)
	want := app.Config{
		ZDSSocket: "/var/run/ztunnel/ztunnel.sock", APISocket: "/env/api", StateDir: "/flag/state",
		Rules:    redirect.Config{ProbeSources: []netip.Addr{netip.MustParseAddr("169.254.7.127"), netip.MustParseAddr("fd16::1")}},
		LogLevel: "info", LogFormat: "text",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestParseErrorsNameTheSetting(t *testing.T) {
	none := func(string) string { return "" }
	for args, says := range map[string]string{
		"--probe-sources x": "--probe-sources", "--zds-socket=": "--zds-socket", "extra": `"extra"`, "--what": "what",
	} {
		if _, err := app.Parse(strings.Fields(args), none, io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to name %s", args, err, says)
		}
	}
	if _, err := app.Parse([]string{"--help"}, none, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

func TestParseKubernetes(t *testing.T) {
	env := map[string]string{"NODE_NAME": "n1", "POD_NAMESPACE": "istio-system"}
	getenv := func(name string) string { return env[name] }
	got, err := app.Parse([]string{"--kubernetes", "--exclude-namespaces", "a, b", "--proc", "/p"}, getenv, io.Discard)
	want := app.Config{
		ZDSSocket: "/var/run/ztunnel/ztunnel.sock", APISocket: "/var/run/tulle/agent.sock", StateDir: "/var/run/tulle/agent",
		MetricsAddr: ":15019", LogLevel: "info", LogFormat: "text",
		Rules: redirect.Config{ProbeSources: hostprobe.Sources()},
		Kubernetes: &app.KubernetesConfig{
			Node: "n1", Exclude: []string{"a", "b"}, Namespace: "istio-system", DaemonSet: "tulle-agent",
			ConfDir: "/etc/cni/net.d", BinDir: "/opt/cni/bin", Proc: "/p", Netns: "/var/run/netns",
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %+v, %v", got, got.Kubernetes, err)
	}
	got, err = app.Parse([]string{"--kubernetes", "--metrics", "localhost:1", "--probe-sources", "1.2.3.4"}, getenv, io.Discard)
	if err != nil || got.MetricsAddr != "localhost:1" || len(got.Rules.ProbeSources) != 1 {
		t.Errorf("what is set stays: %+v, %v", got, err)
	}
	none := func(string) string { return "" }
	if _, err := app.Parse([]string{"--kubernetes"}, none, io.Discard); err == nil || !strings.Contains(err.Error(), "--node") {
		t.Errorf("without a node: %v", err)
	}
	if got, err := app.Parse([]string{"clean", "--cni-conf-dir", "/c"}, none, io.Discard); err != nil || !got.Clean || got.Kubernetes.ConfDir != "/c" {
		t.Errorf("clean: %+v, %v", got, err)
	}
}
