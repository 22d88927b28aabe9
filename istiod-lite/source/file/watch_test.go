package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/source/file"
)

const bound = time.Minute

func ns(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", n)
	}
	return b.String()
}

type fixture struct {
	t   *testing.T
	src *file.Source
	reg *prometheus.Registry
}

// follow starts a source on path whose poll is too slow to help.
func follow(t *testing.T, path string) *fixture {
	t.Helper()
	reg := prometheus.NewRegistry()
	src, err := file.New(file.Config{Path: path, RootNamespace: "istio-system", Poll: time.Hour, Logger: zap.NewNop(), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return &fixture{t, src, reg}
}

// await waits until the namespaces in force are exactly these.
func (f *fixture) await(names ...string) {
	f.t.Helper()
	deadline := time.After(bound)
	for {
		if o := f.src.Objects(); o != nil && len(o.Namespaces) == len(names) {
			all := true
			for _, n := range names {
				all = all && o.Namespaces[source.Name{Name: n}] != nil
			}
			if all {
				return
			}
		}
		select {
		case <-f.src.Changed():
		case <-deadline:
			f.t.Fatalf("waited %v for %v; status %+v", bound, names, f.src.Status())
		}
	}
}

func (f *fixture) awaitProblem(text string) source.Status {
	f.t.Helper()
	end := time.Now().Add(bound)
	for {
		st := f.src.Status()
		for _, p := range st.Problems {
			if strings.Contains(p.Error(), text) {
				return st
			}
		}
		if time.Now().After(end) {
			f.t.Fatalf("waited %v for a problem with %q; status %+v", bound, text, st)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace writes beside and renames over, as editors and meshctl do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".swp")
	put(t, tmp, content)
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.Symlink(target, tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func TestFilesThatComeChangeAndGo(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), ns("a1", "a2"))
	put(t, filepath.Join(dir, ".hidden.yaml"), "rubbish: [")
	put(t, filepath.Join(dir, "README.md"), "rubbish: [")
	f := follow(t, dir)
	f.await("a1", "a2")
	replace(t, filepath.Join(dir, "a.yaml"), ns("a1"))
	f.await("a1")
	put(t, filepath.Join(dir, "deep/er/b.json"), `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b1"}}`)
	f.await("a1", "b1")
	put(t, filepath.Join(dir, "deep/er/c.yml"), ns("c1"))
	f.await("a1", "b1", "c1")
	if err := os.RemoveAll(filepath.Join(dir, "deep")); err != nil {
		t.Fatal(err)
	}
	f.await("a1")
	if err := os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "a.yaml"), ns("a9"))
	f.await("a1", "a9")
}

func TestOneFileAsTheSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, path, ns("a"))
	f := follow(t, path)
	f.await("a")
	replace(t, path, ns("b"))
	f.await("b")
	put(t, path, ns("c")) // written in place
	f.await("c")
}

// TestASwappedLinkIsFollowed does what Kubernetes does with a mounted ConfigMap.
func TestASwappedLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "..2026_1/mesh.yaml"), ns("old"))
	put(t, filepath.Join(dir, "..2026_2/mesh.yaml"), ns("new"))
	link(t, "..2026_1", filepath.Join(dir, "..data"))
	link(t, "..data/mesh.yaml", filepath.Join(dir, "mesh.yaml"))
	f := follow(t, dir)
	f.await("old")
	link(t, "..2026_2", filepath.Join(dir, "..data"))
	f.await("new")
}

func TestTheDirectoryItselfReplaced(t *testing.T) {
	base := t.TempDir()
	put(t, filepath.Join(base, "v1/m.yaml"), ns("v1"))
	put(t, filepath.Join(base, "v2/m.yaml"), ns("v2"))
	link(t, "v1", filepath.Join(base, "cfg"))
	f := follow(t, filepath.Join(base, "cfg"))
	f.await("v1")
	link(t, "v2", filepath.Join(base, "cfg"))
	f.await("v2")
	put(t, filepath.Join(base, "v2/n.yaml"), ns("more")) // the new directory is watched
	f.await("v2", "more")
	if err := os.Remove(filepath.Join(base, "cfg")); err != nil {
		t.Fatal(err)
	}
	f.awaitProblem("no such file")
	f.await("v2", "more") // the last good state
	link(t, "v1", filepath.Join(base, "cfg"))
	f.await("v1")
}

func TestALoopOfLinksIsAProblem(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "sub/m.yaml"), ns("a"))
	link(t, "..", filepath.Join(dir, "sub/up"))
	f := follow(t, dir)
	f.awaitProblem("symbolic link to a directory above it")
	if err := os.Remove(filepath.Join(dir, "sub/up")); err != nil {
		t.Fatal(err)
	}
	f.await("a")
}

func TestOneBadFileKeepsTheLastGoodStateOfAll(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), ns("a"))
	put(t, filepath.Join(dir, "b.yaml"), ns("b"))
	f := follow(t, dir)
	f.await("a", "b")
	replace(t, filepath.Join(dir, "b.yaml"), ns("b")+"extra: 1\n")
	st := f.awaitProblem("extra")
	if p := st.Problems[0]; p.File != "b.yaml" || p.Object != "Namespace b" || p.Field != "extra" || st.Objects["Namespace"] != 2 || st.LastGood.IsZero() {
		t.Errorf("status %+v", st)
	}
	put(t, filepath.Join(dir, "c.yaml"), ns("c")) // good, and waits for b
	replace(t, filepath.Join(dir, "d.yaml"), ns("a"))
	f.awaitProblem("d.yaml:2: Namespace a: metadata.name: duplicate: the same object is in a.yaml:2")
	f.await("a", "b")
	if got := gauge(t, f.reg, "istiod_config_problems"); got != 2 {
		t.Errorf("istiod_config_problems = %v", got)
	}
	replace(t, filepath.Join(dir, "b.yaml"), ns("b2"))
	if err := os.Remove(filepath.Join(dir, "d.yaml")); err != nil {
		t.Fatal(err)
	}
	f.await("a", "b2", "c")
	if st := f.src.Status(); len(st.Problems) != 0 || st.ProblemsTotal != 0 {
		t.Errorf("problems left: %+v", st)
	}
}

// TestAReadingThatFindsNothingNewIsToldToo lets a writer know that what it wrote
// is in force, also when a reading took it before the writer looked at the clock.
func TestAReadingThatFindsNothingNewIsToldToo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put(t, path, ns("a"))
	old := time.Now().Add(-time.Minute) // not in the middle of being written
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	src, err := file.New(file.Config{Path: dir, RootNamespace: "istio-system", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	src.Load()
	good, written := src.Status().LastGood, time.Now()
	src.Load()
	if st := src.Status(); st.LastRead.Before(written) || !st.LastGood.Equal(good) {
		t.Errorf("after a reading that found nothing new: %+v", st)
	}
	put(t, path, "a: b\n")
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	written = time.Now()
	src.Load()
	if st := src.Status(); len(st.Problems) == 0 || !st.LastRead.Before(written) {
		t.Errorf("after a reading that found a mistake: %+v", st)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestAnEmptiedFileIsNotBelievedAtOnce is a shell's "> file": between the
// truncation and the write, what the file holds must not leave the mesh.
func TestAnEmptiedFileIsNotBelievedAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put(t, path, ns("a"))
	src, err := file.New(file.Config{Path: dir, RootNamespace: "istio-system", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	src.Load()
	for {
		begin := time.Now()
		put(t, path, "")
		unsettled := src.Load()
		if unsettled && len(src.Objects().Namespaces) == 1 {
			break
		}
		if took := time.Since(begin); took < time.Second {
			t.Fatalf("after %v: unsettled %v, %d namespaces", took, unsettled, len(src.Objects().Namespaces))
		}
		put(t, path, ns("a")) // the machine stood still
		src.Load()
	}
	old := time.Now().Add(-time.Minute) // and a minute later it is meant
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if src.Load(); len(src.Objects().Namespaces) != 0 {
		t.Fatal("an empty file is not believed at all")
	}
}

// TestUnchangedDocumentsKeepTheirObjects is what lets translation skip them.
func TestUnchangedDocumentsKeepTheirObjects(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put(t, path, ns("a", "b", "c"))
	src, err := file.New(file.Config{Path: dir, RootNamespace: "istio-system", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	src.Load()
	before := src.Objects()
	src.Load()
	if src.Objects() != before {
		t.Error("reading the same made new objects")
	}
	put(t, path, "# moved down\n"+ns("a", "c", "d"))
	src.Load()
	after := src.Objects()
	for _, n := range []string{"a", "c"} {
		if k := (source.Name{Name: n}); before.Namespaces[k] != after.Namespaces[k] {
			t.Errorf("%s was decoded again", n)
		}
	}
	if len(after.Namespaces) != 3 {
		t.Errorf("%d namespaces", len(after.Namespaces))
	}
}

func TestPollingFindsWhatNoEventTells(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	put(t, filepath.Join(elsewhere, "real.yaml"), ns("a"))
	link(t, filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "m.yaml"))
	src, err := file.New(file.Config{Path: dir, RootNamespace: "istio-system", Poll: 10 * time.Millisecond, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); src.Run(ctx) }()
	defer func() { cancel(); <-done }()
	f := &fixture{t: t, src: src}
	f.await("a")
	put(t, filepath.Join(elsewhere, "real.yaml"), ns("b")) // its directory is not watched
	f.await("b")
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []file.Config{
		{RootNamespace: "r", Logger: zap.NewNop()},
		{Path: "x", Logger: zap.NewNop()},
		{Path: "x", RootNamespace: "r"},
		{Path: "x", RootNamespace: "r", Logger: zap.NewNop(), Poll: -1},
	} {
		if _, err := file.New(cfg); err == nil {
			t.Errorf("taken: %+v", cfg)
		}
	}
}
