package manifests_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/manifests"
)

// exported reads the tables of docs/metrics.md, which a test of internal/repocheck
// holds to the code: each metric with its labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	ticks := regexp.MustCompile("`([a-z_]+)`")
	_, rest, _ := strings.Cut(doc, "Every family has the labels ")
	paragraph, _, _ := strings.Cut(rest, "; what is not known")
	var traffic []string
	for _, m := range ticks.FindAllStringSubmatch(paragraph, -1) {
		traffic = append(traffic, m[1])
	}
	if len(traffic) < 20 {
		t.Fatalf("docs/metrics.md: %d labels of connections", len(traffic))
	}
	metrics := make(map[string][]string)
	for line := range strings.Lines(doc) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		m := ticks.FindStringSubmatch(cells[0])
		if m == nil || !strings.HasPrefix(line, "| `") || !strings.Contains(m[1], "_") {
			continue
		}
		name := m[1]
		switch {
		case name == "istio_tcp_sockets_open":
			metrics[name] = []string{"reporter"}
		case strings.HasPrefix(name, "istio_tcp_"):
			metrics[name] = traffic
		case len(cells) == 3:
			metrics[name] = nil
			for label := range strings.SplitSeq(cells[1], ",") {
				if label = strings.TrimSpace(label); label != "" {
					metrics[name] = append(metrics[name], label)
				}
			}
		}
	}
	return metrics
}

var (
	metricUse = regexp.MustCompile(`\b((?:istio|istiod|pilot|citadel|workload_manager|tulle|process)_[a-z0-9_]+)(\{[^}]*\})?`)
	labelUse  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	byUse     = regexp.MustCompile(`(?:by|on|group_left)\s*\(([^)]*)\)`)
	quoted    = regexp.MustCompile(`"[^"]*"`)
)

// check holds one expression to what the binaries export.
func check(t *testing.T, where, expr string, metrics map[string][]string) {
	t.Helper()
	known := []string{"instance", "le"}
	for _, m := range metricUse.FindAllStringSubmatch(withoutValues(expr), -1) {
		name := m[1]
		labels, ok := metrics[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if !ok {
				labels, ok = metrics[strings.TrimSuffix(name, suffix)]
			}
		}
		if strings.HasPrefix(name, "process_") {
			ok = true
		}
		switch {
		case slices.Contains(groupingLabels(expr), name):
			continue // a label that looks like a metric, such as destination_workload
		case !ok:
			t.Errorf("%s: nobody exports %s", where, name)
			continue
		}
		for _, l := range labelUse.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labels, l[1]) && l[1] != "instance" {
				t.Errorf("%s: %s has no label %s", where, name, l[1])
			}
		}
		known = append(known, labels...)
	}
	for _, label := range groupingLabels(expr) {
		if !slices.Contains(known, label) {
			t.Errorf("%s: groups by %s, which none of its metrics has: %s", where, label, expr)
		}
	}
}

// withoutValues empties the texts of an expression, which may hold braces.
func withoutValues(expr string) string { return quoted.ReplaceAllString(expr, `""`) }

func groupingLabels(expr string) (list []string) {
	for _, m := range byUse.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			list = append(list, strings.TrimSpace(label))
		}
	}
	return list
}

type dashboard struct {
	Title         string `json:"title"`
	UID           string `json:"uid"`
	SchemaVersion int    `json:"schemaVersion"`
	Panels        []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		GridPos struct {
			X, Y, W, H int
		} `json:"gridPos"`
		Targets []struct {
			Expr         string `json:"expr"`
			RefID        string `json:"refId"`
			LegendFormat string `json:"legendFormat"`
		} `json:"targets"`
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

func TestTheDashboardShowsWhatIsExported(t *testing.T) {
	metrics := exported(t)
	raw, err := os.ReadFile("chart/dashboards/tulle.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion < 36 {
		t.Errorf("title %q, uid %q, schema %d", d.Title, d.UID, d.SchemaVersion)
	}
	ids := make(map[int]bool)
	used := make(map[string]bool)
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is not on the grid: %+v", p.Title, p.GridPos)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			check(t, p.Title, target.Expr, metrics)
			for _, m := range regexp.MustCompile(`\{\{([a-z_]+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(groupingLabels(target.Expr), m[1]) && m[1] != "instance" {
					t.Errorf("%s: the legend names %s, which its expression drops", p.Title, m[1])
				}
			}
			for _, m := range metricUse.FindAllStringSubmatch(target.Expr, -1) {
				used[m[1]] = true
			}
		}
	}
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\(([a-z_]+), ([a-z_]+)\)$`).FindStringSubmatch(v.Definition); m != nil {
			if !slices.Contains(metrics[m[1]], m[2]) {
				t.Errorf("variable %s: %s has no label %s", v.Name, m[1], m[2])
			}
		} else if v.Type == "query" {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
		}
	}
	if len(used) < 25 {
		t.Errorf("shows %d metrics: %v", len(used), slices.Sorted(maps.Keys(used)))
	}
}

func TestAlertsAskForWhatIsExported(t *testing.T) {
	metrics := exported(t)
	raw, err := os.ReadFile("chart/dashboards/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict(raw, &rules); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			check(t, r.Alert, r.Expr, metrics)
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s says too little", r.Alert)
			}
		}
	}
	if n == 0 {
		t.Error("no alert")
	}
}

func TestDashboardsAndAlertsAreInstalledWhereTheyAreAskedFor(t *testing.T) {
	objects := render(t, manifests.Release{}, "monitoring.dashboards.enabled=true", "monitoring.rules.enabled=true", "monitoring.rules.labels={release: prometheus}")
	var config, rule bool
	for _, o := range objects {
		switch o.GetKind() {
		case "ConfigMap":
			data, _ := o.Object["data"].(map[string]any)
			text, _ := data["tulle.json"].(string)
			config = json.Valid([]byte(text)) && o.GetLabels()["grafana_dashboard"] == "1"
		case "PrometheusRule":
			spec, _ := o.Object["spec"].(map[string]any)
			groups, _ := spec["groups"].([]any)
			rule = len(groups) == 1 && o.GetLabels()["release"] == "prometheus"
		}
	}
	if !config || !rule {
		t.Errorf("dashboard %v, rules %v", config, rule)
	}
	for _, o := range render(t, manifests.Release{}) {
		if o.GetKind() == "ConfigMap" || o.GetKind() == "PrometheusRule" {
			t.Errorf("%s %s without being asked for", o.GetKind(), o.GetName())
		}
	}
}
