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
