package repocheck_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository, seen from this package's folder.
const root = "../.."

// goPackage is what go list tells of one package.
type goPackage struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
}

func (p goPackage) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %v: %v\n%s", args, err, exit.Stderr)
		}
		t.Fatalf("go list %v: %v", args, err)
	}
	return out
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(goList(t, "-json=ImportPath,Dir,Name,GoFiles,Imports", "./..."))))
	var all []goPackage
	for {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func listDeps(t *testing.T, pkg string) []string {
	t.Helper()
	return strings.Fields(string(goList(t, "-deps", pkg)))
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	for _, p := range listPackages(t) {
		comments := 0
		for _, name := range p.GoFiles {
			if strings.HasSuffix(name, ".pb.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc != nil && !isDirective(f.Doc) {
				comments++
			}
		}
		generated := len(p.GoFiles) > 0 && strings.HasPrefix(p.rel(), "api/")
		if len(p.GoFiles) > 0 && comments != 1 && !generated {
			t.Errorf("%s has %d package comments, want 1", p.rel(), comments)
		}
	}
}

func isDirective(doc *ast.CommentGroup) bool { return strings.TrimSpace(doc.Text()) == "" }

func TestNoPackageIsNamedForNothing(t *testing.T) {
	for _, p := range listPackages(t) {
		switch filepath.Base(p.ImportPath) {
		case "util", "utils", "common", "helpers", "misc", "base", "types":
			t.Errorf("%s: a name that says nothing", p.rel())
		}
	}
}

func TestCodeIsFormatted(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-co", "--exclude-standard", "*.go")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := strings.Fields(string(out))
	for len(files) > 0 {
		n := min(200, len(files))
		var some []string
		for _, f := range files[:n] {
			if _, err := os.Stat(filepath.Join(root, f)); err == nil {
				some = append(some, f)
			}
		}
		files = files[n:]
		cmd := exec.CommandContext(t.Context(), "gofmt", append([]string{"-l"}, some...)...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("gofmt: %v\n%s", err, out)
		}
		for name := range strings.FieldsSeq(string(out)) {
			t.Errorf("%s is not formatted; run: gofmt -w %s", name, name)
		}
	}
}

// TestOnlyTextIsTracked keeps what was built out of the history, from where it
// never goes away again.
func TestOnlyTextIsTracked(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if len(raw) > 1<<20 || bytes.IndexByte(raw, 0) >= 0 {
			t.Errorf("%s (%d bytes) is no source: git rm it", name, len(raw))
		}
	}
}

// TestNothingIsLeftOpen keeps promises out of the tree: an open point is an issue.
func TestNothingIsLeftOpen(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "grep", "-nE", `(TO`+`DO|FIX`+`ME|XX`+`X)[:( ]`, "--", "*.go", "*.md", "*.proto")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		t.Errorf("left open:\n%s", out)
	}
}
