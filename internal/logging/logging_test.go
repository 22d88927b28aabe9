package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/logging"
)

func newLogger(t *testing.T, cfg logging.Config) (*zap.Logger, *logging.Levels, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	cfg.Output = &out
	log, levels, err := logging.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return log, levels, &out
}

func TestTextIsOneTabSeparatedLineWithFieldsInOrder(t *testing.T) {
	log, _, out := newLogger(t, logging.Config{})
	log.Named("xds").With(zap.String("node", "n1")).Info("connected\nforged",
		zap.String("b", "two words"), zap.Duration("a", 1500*time.Millisecond), zap.Int("n", 7),
		zap.Error(nil), zap.NamedError("err", errors.New(`bad "x"`)))
	parts := strings.SplitN(strings.TrimSuffix(out.String(), "\n"), "\t", 5)
	if len(parts) != 5 {
		t.Fatalf("line %q has %d parts", out, len(parts))
	}
	if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
		t.Errorf("time: %v", err)
	}
	want := []string{"info", "xds", `connected\nforged`, `node=n1 b="two words" a=1.5s n=7 err="bad \"x\""`}
	for i, w := range want {
		if parts[i+1] != w {
			t.Errorf("part %d = %q, want %q", i+1, parts[i+1], w)
		}
	}
}

func TestJSONCarriesTargetMessageAndFields(t *testing.T) {
	log, _, out := newLogger(t, logging.Config{Format: "json"})
	log.Named("xds").With(zap.String("node", "n1")).Warn("lost", zap.Int("n", 7))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]any{"level": "warn", "target": "xds", "message": "lost", "node": "n1", "n": 7.0} {
		if got[k] != v {
			t.Errorf("%s = %v, want %v", k, got[k], v)
		}
	}
}

func TestLevelsByNameCoverTheNamesBelow(t *testing.T) {
	log, levels, out := newLogger(t, logging.Config{Level: "warn"})
	if err := levels.Set("xds:debug,xds.client:error"); err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Named("xds").Debug("shown-1")
	log.Named("xds").Named("server").Debug("shown-2")
	log.Named("xds").Named("client").Warn("hidden")
	if got := levels.String(); got != "warn,xds:debug,xds.client:error" {
		t.Errorf("String() = %q", got)
	}
	levels.Reset()
	log.Named("xds").Debug("hidden")
	if s := out.String(); strings.Contains(s, "hidden") || strings.Count(s, "shown") != 2 {
		t.Errorf("output:\n%s", s)
	}
}

func TestAWrongLevelNamesItselfAndChangesNothing(t *testing.T) {
	_, levels, _ := newLogger(t, logging.Config{})
	for _, spec := range []string{"loud", "xds:", ":debug", "debug,xds:loud", ""} {
		if err := levels.Set(spec); err == nil {
			t.Errorf("Set(%q) accepted", spec)
		}
	}
	if got := levels.String(); got != "info" {
		t.Errorf("levels are %q", got)
	}
	if _, _, err := logging.New(logging.Config{Format: "xml"}); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("format xml: %v", err)
	}
}
