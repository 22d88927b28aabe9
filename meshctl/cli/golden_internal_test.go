package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/meshctl/check"
	"github.com/tulle-mesh/tulle/meshctl/explain"
	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update and look at git diff\ngot:\n%s\nwant:\n%s", file, got, want)
	}
	for i, line := range strings.Split(got, "\n") {
		if strings.TrimRight(line, " ") != line {
			t.Errorf("%s:%d: trailing blanks", file, i+1)
		}
	}
}

// proxiesOf are ztunnels that answer with files of testdata: one for each node, by
// its name.
func proxiesOf(t *testing.T, nodes ...string) *selection {
	t.Helper()
	sel := &selection{}
	for _, node := range nodes {
		data, err := os.ReadFile(filepath.Join("testdata", "dump-"+node+".json"))
		if err != nil {
			t.Fatal(err)
		}
		sel.proxies = append(sel.proxies, mesh.NewComponent(mesh.Component{Kind: mesh.Ztunnel, Name: "ztunnel-" + node, Node: node, Ready: true},
			func(_ context.Context, method, path string) ([]byte, error) {
				if method != "GET" || path != "/config_dump" {
					return nil, fmt.Errorf("%s %s", method, path)
				}
				return data, nil
			}))
	}
	return sel
}

func TestListingsOfTheMesh(t *testing.T) {
	for _, tt := range []struct {
		name      string
		namespace string
		output    outputFlag
		nodes     []string
	}{
		{"plain", "", "table", []string{"n1", "n2"}},
		{"wide", "", "wide", []string{"n1", "n2"}},
		{"namespace", "data", "table", []string{"n1"}},
		{"empty", "nowhere", "table", []string{"n1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			s := &streams{out: &out}
			sel := proxiesOf(t, tt.nodes...)
			for _, print := range []func() error{
				func() error { return workloadsView.print(t.Context(), s, sel, tt.namespace, tt.output) },
				func() error { return servicesView.print(t.Context(), s, sel, tt.namespace, tt.output) },
				func() error { return policiesView.print(t.Context(), s, sel, tt.namespace, tt.output) },
			} {
				if err := print(); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&out)
			}
			golden(t, "listings-"+tt.name, out.String())
		})
	}
}

func TestListingsForProgramsNameTheZtunnels(t *testing.T) {
	var out bytes.Buffer
	if err := policiesView.print(t.Context(), &streams{out: &out}, proxiesOf(t, "n1", "n2"), "", "json"); err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Name     string
		Action   string
		Ztunnels []string
	}
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "trial" || strings.Join(list[0].Ztunnels, " ") != "n1" || list[1].Action != "Allow" || len(list[1].Ztunnels) != 2 {
		t.Errorf("%+v", list)
	}
}

func TestAZtunnelThatDoesNotAnswerIsAnErrorBesideTheOthersAnswers(t *testing.T) {
	sel := proxiesOf(t, "n1")
	sel.proxies = append(sel.proxies, mesh.NewComponent(mesh.Component{Name: "ztunnel-n9", Node: "n9", Reason: "it is being deleted"},
		func(context.Context, string, string) ([]byte, error) { return nil, fmt.Errorf("connection refused") }))
	var out bytes.Buffer
	err := workloadsView.print(t.Context(), &streams{out: &out}, sel, "", "table")
	if err == nil || !strings.Contains(err.Error(), "ztunnel-n9 on n9 does not answer: connection refused (it is being deleted)") || !strings.Contains(out.String(), "web-1") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestConnectionsAreNamedAndMeasured(t *testing.T) {
	answers, err := proxiesOf(t, "n1").dumps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	table(&out, connectionRows(connections(answers, false, at), false))
	fmt.Fprintln(&out)
	table(&out, connectionRows(connections(answers, true, at), true))
	golden(t, "connections", out.String())
}

func TestCertificateChains(t *testing.T) {
	answers, err := proxiesOf(t, "n1").dumps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := chains(answers, time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if c := list[0]; c.Type != "Leaf" || !c.Valid || !strings.HasSuffix(c.Serial, "ff") || c.Node != "n1" {
		t.Errorf("leaf %+v", c)
	}
	if c := list[1]; c.Type != "Root" || c.Valid {
		t.Errorf("root that ended %+v", c)
	}
	if c := list[2]; c.Status != "Initializing" || c.Serial != "" {
		t.Errorf("without a chain %+v", c)
	}
}

func TestExplanationsAsText(t *testing.T) {
	for _, name := range []string{"refused", "outside", "nowhere"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "explain-"+name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var e explain.Explanation
			if err := json.Unmarshal(data, &e); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			p := explanation{w: &out, paint: func(_, text string) string { return text }}
			p.print(&e)
			golden(t, "explain-"+name, out.String())
			for _, line := range strings.Split(out.String(), "\n") {
				if n := len([]rune(line)); n > textWidth {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func TestChecksAsText(t *testing.T) {
	var out bytes.Buffer
	report := &check.Report{Outcome: check.Failed, Passed: 1, Warned: 1, Failed: 1}
	p := &checkPrinter{s: &streams{out: &out}, paint: func(_, text string) string { return text }}
	p.print(check.Result{Category: "kubernetes", Name: "the API server answers", Status: check.Passed})
	p.print(check.Result{Category: "data plane", Name: "all components have one version", Status: check.Warned, Items: []string{"v1: istiod", "v2: ztunnel"}, Hint: "normal during an upgrade"})
	p.print(check.Result{Category: "data plane", Name: "ztunnel is ready on every node (3)", Status: check.Failed,
		Items: []string{"node n2 has none"}, Hint: "kubectl describe and logs of its pod on that node say more; kubectl describe daemonset says why there is none"})
	p.summary(report)
	golden(t, "check", out.String())
}

func TestColourIsForTerminalsOnly(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := paint(file)(red, "x"); got != "x" {
		t.Errorf("a file gets %q", got)
	}
	terminal, err := os.OpenFile("/dev/null", os.O_WRONLY, 0) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if got := paint(terminal)(red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("a terminal gets %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := paint(terminal)(red, "x"); got != "x" {
		t.Errorf("NO_COLOR gets %q", got)
	}
}

func TestAmountsInThreeDigits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "0.98 KiB", 1536: "1.50 KiB", 10 << 10: "10.0 KiB", 999 << 10: "999 KiB", 3 << 20: "3.00 MiB", 1 << 60: "1.00 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
