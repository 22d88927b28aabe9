package repocheck_test

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tulle-mesh/tulle"

// layers maps each package, or with a trailing /... a package and all below it,
// to its layer. An import goes down, or across inside one component.
var layers = []struct {
	layer    int
	packages []string
}{
	{0, []string{
		"api/...", "internal/backoff", "internal/baggage", "internal/cel", "internal/istiojson", "internal/jsonfault", "internal/lifecycle", "internal/logformat", "internal/logging", "internal/netns",
		"internal/nodetoken", "internal/rawio", "internal/readiness", "internal/relay", "internal/roottest", "internal/settings", "internal/sockopt", "internal/telemetry",
	}},
	{1, []string{"internal/authz/...", "internal/workload"}},
	{2, []string{
		"certs", "certs/caclient", "certs/forge", "certs/rotation",
		"internal/accesslog", "internal/admin", "internal/mtls", "internal/xdsclient", "internal/hbone/...",
	}},
	{3, []string{"internal/handshake", "internal/state"}},
	{4, []string{
		"ztunnel/config", "ztunnel/conntrack", "ztunnel/explain", "ztunnel/inbound", "ztunnel/inpod", "ztunnel/metrics",
		"ztunnel/nexthop", "ztunnel/outbound", "ztunnel/redirect", "ztunnel/zds", "ztunnel/agent/...",
		"istiod-lite/authority", "istiod-lite/ca", "istiod-lite/config", "istiod-lite/deploy", "istiod-lite/leader", "istiod-lite/lease", "istiod-lite/meshconfig", "istiod-lite/rootcert",
		"istiod-lite/snapshot", "istiod-lite/status", "istiod-lite/translate", "istiod-lite/xds", "istiod-lite/source/...",
		"waypoint/...", "manifests",
	}},
	{5, []string{
		"ztunnel/app", "waypoint/app", "istiod-lite/app",
		"meshctl/check", "meshctl/cli", "meshctl/explain", "meshctl/install", "meshctl/kube", "meshctl/membership", "meshctl/mesh", "meshctl/waypoint",
		"meshctl/local/...", "internal/kubetest", "e2e/bench/report",
	}},
	{6, []string{
		"ztunnel", "ztunnel/agent", "waypoint", "istiod-lite", "meshctl", "manifests/generate", "e2e/...", "examples/...", "internal/repocheck",
	}},
}

// components never import each other.
var components = []string{"ztunnel", "waypoint", "istiod-lite", "meshctl"}

// pureDeciders are what meshctl may import of the components: what decides, and the
// values that it decides on.
var pureDeciders = []string{
	"ztunnel/nexthop", "ztunnel/explain", "waypoint/route", "waypoint/message", "istiod-lite/translate", "istiod-lite/source", "istiod-lite/source/file",
}

// forbidden lists edges that the layers allow and a reason forbids.
var forbidden = []struct {
	from, to []string
	reason   string
}{
	{[]string{"internal/hbone/..."}, []string{"internal/mtls", "certs/..."},
		"tunnel and identity change separately: hbone takes connections and dialers"},
	{[]string{"internal/authz"}, []string{"internal/hbone/..."},
		"attributes are plain values, decidable without a socket"},
}

// restricted lists foreign packages (by prefix) that only some packages may import.
var restricted = []struct {
	prefixes []string
	only     []string
	reason   string
}{
	{[]string{"golang.org/x/sys", "github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/mdlayher/netlink"},
		[]string{
			"internal/sockopt", "internal/netns", "internal/roottest", "ztunnel/redirect", "ztunnel/inpod", "ztunnel/zds",
			"ztunnel/agent/...", "meshctl/local/...", "e2e/...", "examples/...",
		},
		"system calls live at the edges, so that decisions stay testable without a kernel"},
	{[]string{"google.golang.org/grpc"},
		[]string{
			"api/...", "certs/caclient", "certs/workloadapi", "internal/xdsclient", "istiod-lite/xds", "istiod-lite/ca", "istiod-lite/lease",
			"waypoint/filter", "waypoint/otlp", "waypoint/ratelimit", "waypoint/upstream", "ztunnel/app", "istiod-lite/app", "waypoint/app", "e2e/...",
		},
		"gRPC is for the control plane's streams and stays off the data path"},
	{[]string{"k8s.io/client-go", "istio.io/client-go/pkg/clientset", "istio.io/client-go/pkg/informers", "istio.io/client-go/pkg/listers", "sigs.k8s.io/controller-runtime"},
		[]string{
			"istiod-lite/source/kube", "istiod-lite/ca", "istiod-lite/authority", "istiod-lite/leader", "istiod-lite/rootcert",
			"istiod-lite/deploy", "istiod-lite/status", "istiod-lite/app",
			"ztunnel/agent/...", "meshctl/...", "e2e/...", "internal/kubetest",
		},
		"Kubernetes clients cost tens of megabytes and never belong in a proxy"},
	{[]string{"github.com/quic-go"}, []string{"internal/hbone/...", "ztunnel/app", "ztunnel/inbound", "ztunnel/outbound", "e2e/..."},
		"QUIC is a carrier behind the tunnel's interface"},
}

// pure packages do no I/O: the same code explains decisions offline.
var pure = map[string]string{
	"ztunnel/nexthop":        "meshctl explain runs the very same decision",
	"ztunnel/explain":        "an explanation is a function of the mesh's state",
	"istiod-lite/translate":  "translation is a function of the objects alone",
	"internal/authz":         "a decision needs no socket",
	"internal/authz/request": "a decision needs no codec",
	"internal/workload":      "values are parsed without a socket",
	"waypoint/route":         "meshctl explain runs the very same decision",
}

// ioPackages are what a pure package may not import, in itself.
var ioPackages = []string{"net", "net/http", "os", "os/exec", "syscall", "io/ioutil"}

func match(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if root, ok := strings.CutSuffix(p, "/..."); ok {
			return pkg == root || strings.HasPrefix(pkg, root+"/")
		}
		return pkg == p
	})
}

// layerOf returns the layer of the most exact entry that names pkg.
func layerOf(pkg string) (int, bool) {
	best, found, length := 0, false, -1
	for _, l := range layers {
		for _, p := range l.packages {
			if match([]string{p}, pkg) && exactness(p, pkg) > length {
				best, found, length = l.layer, true, exactness(p, pkg)
			}
		}
	}
	return best, found
}

func exactness(pattern, pkg string) int {
	if pattern == pkg {
		return len(pkg) + 1
	}
	return len(pattern) - len("/...")
}

func component(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	if first == "certs" || slices.Contains(components, first) {
		return first
	}
	return ""
}

// checkEdge returns why from may not import to, both relative to the module, "" when it may.
func checkEdge(from, to string) string {
	lf, ok := layerOf(from)
	if !ok {
		return "no layer for " + from + ": add it to the table in internal/repocheck and docs/architecture.md"
	}
	lt, ok := layerOf(to)
	if !ok {
		return "no layer for " + to + ": add it to the table in internal/repocheck and docs/architecture.md"
	}
	cf, ct := component(from), component(to)
	if cf != "" && ct != "" && cf != ct && slices.Contains(components, ct) {
		if !(cf == "meshctl" && slices.Contains(pureDeciders, to)) {
			return "components never import each other; what two need moves down to internal/ or certs/"
		}
	}
	for _, f := range forbidden {
		if match(f.from, from) && match(f.to, to) {
			return f.reason
		}
	}
	switch {
	case lt < lf:
		return ""
	case lt == lf && (cf != "" && cf == ct || sameTree(from, to)):
		return ""
	}
	return fmt.Sprintf("layer %d may not import layer %d", lf, lt)
}

// sameTree tells whether both packages lie in api, or in the same package of
// internal/ or e2e/.
func sameTree(a, b string) bool {
	top := func(p string) string {
		if strings.HasPrefix(p, "api/") {
			return "api"
		}
		parts := strings.SplitN(p, "/", 3)
		return path.Join(parts[:min(2, len(parts))]...)
	}
	return top(a) == top(b)
}

func TestImportsRunDown(t *testing.T) {
	packages := listPackages(t)
	var wrong []string
	for _, p := range packages {
		from := p.rel()
		if _, ok := layerOf(from); !ok {
			wrong = append(wrong, fmt.Sprintf("%s has no layer: add it to the table in internal/repocheck and docs/architecture.md", from))
			continue
		}
		for _, imported := range p.Imports {
			if to, ok := strings.CutPrefix(imported, module+"/"); ok {
				if why := checkEdge(from, to); why != "" {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", from, to, why))
				}
				continue
			}
			for _, r := range restricted {
				if !match(r.only, from) && slices.ContainsFunc(r.prefixes, func(prefix string) bool {
					return imported == prefix || strings.HasPrefix(imported, prefix+"/")
				}) {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", from, imported, r.reason))
				}
			}
			if why, ok := pure[from]; ok && slices.Contains(ioPackages, imported) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, but is pure: %s", from, imported, why))
			}
		}
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

// layerRow matches a row of the table of layers in docs/architecture.md.
var layerRow = regexp.MustCompile(`(?m)^\| (\d+) [^|]*\| (.*) \|$`)

func TestLayersAreThoseOfTheDocumentation(t *testing.T) {
	_, doc, _ := strings.Cut(readDoc(t, "docs/architecture.md"), "\n## Layers\n")
	documented := map[int][]string{}
	for _, row := range layerRow.FindAllStringSubmatch(doc, -1) {
		layer, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			folder, names, _ := strings.Cut(strings.TrimSuffix(m[1], "}"), "{")
			for name := range strings.SplitSeq(names, ",") {
				documented[layer] = append(documented[layer], folder+name)
			}
		}
	}
	packages := listPackages(t)
	for _, l := range layers {
		for _, p := range l.packages {
			if !slices.Contains(documented[l.layer], p) {
				t.Errorf("layer %d of docs/architecture.md lacks %s", l.layer, p)
			}
			if !slices.ContainsFunc(packages, func(have goPackage) bool { return match([]string{p}, have.rel()) }) {
				t.Errorf("layer %d names %s, which does not exist", l.layer, p)
			}
		}
		for _, p := range documented[l.layer] {
			if !slices.Contains(l.packages, p) {
				t.Errorf("layer %d of docs/architecture.md names %s, which the table in internal/repocheck does not", l.layer, p)
			}
		}
		delete(documented, l.layer)
	}
	for layer := range documented {
		t.Errorf("docs/architecture.md has a layer %d, which internal/repocheck does not know", layer)
	}
}

// TestProxiesLinkNoKubernetesClient looks at everything that is linked in, not
// at direct imports alone.
func TestProxiesLinkNoKubernetesClient(t *testing.T) {
	for _, proxy := range []string{"ztunnel", "waypoint"} {
		for _, d := range listDeps(t, "./"+proxy) {
			if strings.HasPrefix(d, "k8s.io/") || strings.HasPrefix(d, "istio.io/") || strings.HasPrefix(d, "sigs.k8s.io/") {
				t.Errorf("%s links %s", proxy, d)
			}
		}
	}
}

func TestEdges(t *testing.T) {
	for edge, allowed := range map[[2]string]bool{
		{"ztunnel/app", "internal/state"}:             true,
		{"ztunnel/outbound", "ztunnel/nexthop"}:       true,
		{"ztunnel/outbound", "internal/hbone"}:        true,
		{"internal/state", "istiod-lite/translate"}:   false,
		{"meshctl/cli", "istiod-lite/translate"}:      true,
		{"meshctl/cli", "istiod-lite/xds"}:            false,
		{"internal/hbone", "internal/mtls"}:           false,
		{"internal/hbone/h3", "internal/hbone"}:       true,
		{"internal/hbone", "internal/state"}:          false,
		{"internal/authz", "internal/workload"}:       false,
		{"certs/rotation", "certs"}:                   true,
		{"internal/mtls", "certs"}:                    false,
		{"ztunnel/app", "certs/rotation"}:             true,
		{"istiod-lite/app", "istiod-lite/ca"}:         true,
		{"internal/state", "ztunnel/app"}:             false,
		{"ztunnel/unheard", "ztunnel/app"}:            false,
		{"internal/relay", "internal/telemetry"}:      false,
		{"ztunnel/agent", "ztunnel/agent/enrol"}:      true,
		{"ztunnel/agent/enrol", "ztunnel/agent/wire"}: true,
	} {
		if why := checkEdge(edge[0], edge[1]); (why == "") != allowed {
			t.Errorf("%s -> %s: allowed = %v (%s)", edge[0], edge[1], !allowed, why)
		}
	}
	if len(slices.Collect(maps.Keys(pure))) == 0 {
		t.Error("no pure packages")
	}
}
