package repocheck_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// metricName is what a string literal must look like to be the name of a metric.
var metricName = regexp.MustCompile(`^(istio|istiod|pilot|citadel|workload_manager|tulle)_[a-z0-9]+(_[a-z0-9]+)*$`)

// notMetrics are literals of that look which name something else.
var notMetrics = []string{"istio_converted_static_strict"}

// literals calls f with every string literal of the module's own code, tests and
// generated code left out.
func literals(t *testing.T, f func(pkg goPackage, value string)) {
	t.Helper()
	for _, p := range listPackages(t) {
		if strings.HasPrefix(p.rel(), "e2e") {
			continue
		}
		for _, name := range p.GoFiles {
			if strings.HasSuffix(name, ".pb.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if value, err := strconv.Unquote(lit.Value); err == nil {
						f(p, value)
					}
				}
				return true
			})
		}
	}
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// backticked lists what stands between backticks in a document and matches re.
func backticked(doc string, re *regexp.Regexp) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(doc, -1) {
		name, _, _ := strings.Cut(m[1], "{")
		if re.MatchString(name) {
			found[name] = true
		}
	}
	return found
}

func TestMetricsInCodeAndDocumentationAgree(t *testing.T) {
	inCode := map[string]string{}
	literals(t, func(p goPackage, value string) {
		if metricName.MatchString(value) && !slices.Contains(notMetrics, value) {
			inCode[value] = p.rel()
		}
	})
	inDocs := backticked(readDoc(t, "docs/metrics.md"), metricName)
	for _, name := range slices.Sorted(maps.Keys(inCode)) {
		if !inDocs[name] {
			t.Errorf("%s of %s is not in docs/metrics.md", name, inCode[name])
		}
		delete(inDocs, name)
	}
	for name := range inDocs {
		t.Errorf("docs/metrics.md has %s, which no code exports", name)
	}
}

// flagCall matches the functions of flag and pflag whose name argument follows.
var flagCall = regexp.MustCompile(`^(String|Bool|Int|Uint|Float|Duration|Text|Func|StringSlice|StringArray)[A-Z0-9a-z]*$`)

func TestFlagsAreDocumented(t *testing.T) {
	docs := readDoc(t, "docs/cli.md") + readDoc(t, "docs/settings.md")
	name := regexp.MustCompile(`^[a-z][a-z0-9]+(-[a-z0-9]+)*$`)
	for _, p := range listPackages(t) {
		switch component(p.rel()) {
		case "ztunnel", "waypoint", "istiod-lite", "meshctl":
		default:
			continue
		}
		for _, file := range p.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !flagCall.MatchString(sel.Sel.Name) || !onFlagSet(sel.X) {
					return true
				}
				for _, arg := range call.Args[:min(2, len(call.Args))] {
					lit, ok := arg.(*ast.BasicLit)
					if !ok || lit.Kind != token.STRING {
						continue
					}
					value, _ := strconv.Unquote(lit.Value)
					if name.MatchString(value) && !strings.Contains(docs, "`--"+value) {
						t.Errorf("%s: flag --%s is neither in docs/cli.md nor in docs/settings.md", p.rel(), value)
					}
					break
				}
				return true
			})
		}
	}
}

// onFlagSet tells whether the receiver looks like a flag set: flag.X, fs.X, cmd.Flags().X.
func onFlagSet(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "flag" || x.Name == "fs" || x.Name == "flags" || x.Name == "f"
	case *ast.CallExpr:
		sel, ok := x.Fun.(*ast.SelectorExpr)
		return ok && strings.HasSuffix(sel.Sel.Name, "Flags")
	}
	return false
}
