package api_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedCodeIsWhatThePinnedGeneratorsWrite runs make generate into an
// empty folder and compares.
func TestGeneratedCodeIsWhatThePinnedGeneratorsWrite(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "run", ".", root, out)
	cmd.Dir = filepath.Join(root, "api", "generate")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go run api/generate: %v\n%s", err, b)
	}
	committed, fresh := generated(t, "."), generated(t, filepath.Join(out, "api"))
	for name, want := range fresh {
		if !bytes.Equal(committed[name], want) {
			t.Errorf("api/%s differs from what its .proto gives; run: make generate", name)
		}
		delete(committed, name)
	}
	for name := range committed {
		t.Errorf("api/%s comes from no .proto; delete it", name)
	}
}

func generated(t *testing.T, root string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		found[path], err = os.ReadFile(filepath.Join(root, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
