package manifests_test

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestWrittenFilesAreNewest writes everything that is generated anew and compares.
func TestWrittenFilesAreNewest(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "./generate", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := tree(t, dir, ".")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want[name] {
			t.Errorf("%s is not what `go generate ./manifests` writes (%v)", name, err)
		}
	}
	for _, folder := range []string{"kustomize", "chart/crds"} {
		for name := range tree(t, ".", folder) {
			if _, ok := want[name]; !ok {
				t.Errorf("%s is left over: `go generate ./manifests` takes it away", name)
			}
		}
	}
}

func tree(t *testing.T, root, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		found[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
