package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/e2e/cluster/image"
)

func write(t *testing.T, s image.Spec) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := image.Write(out, s); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries reads a tar archive: the headers and the content by name.
func entries(t *testing.T, archive []byte) (map[string]*tar.Header, map[string][]byte) {
	t.Helper()
	headers, content := map[string]*tar.Header{}, map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers, content
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		headers[h.Name], content[h.Name] = h, b
	}
}

func example(t *testing.T) image.Spec {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := image.NewFiles()
	if err := f.Copy("/usr/local/bin/program", program); err != nil {
		t.Fatal(err)
	}
	f.Content("etc/passwd", 0o644, "root:x:0:0::/:\n")
	f.Link("/bin", "usr/bin")
	f.OwnedDir("/data", 0o700, 70)
	return image.Spec{Name: "example.test/x:1", Entrypoint: []string{"/usr/local/bin/program"}, User: "70", Env: []string{"A=b"}, Files: f}
}

func TestEveryBlobIsNamedByItsContent(t *testing.T) {
	_, content := entries(t, write(t, example(t)))
	type desc struct {
		Digest      string
		Size        int
		Annotations map[string]string
	}
	blob := func(d desc) []byte {
		b, ok := content["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		sum := sha256.Sum256(b)
		if !ok || len(b) != d.Size || "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
			t.Fatalf("blob %+v: found %v, %d bytes", d, ok, len(b))
		}
		return b
	}
	decode := func(b []byte, v any) {
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
	}
	var index struct{ Manifests []desc }
	decode(content["index.json"], &index)
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "example.test/x:1" {
		t.Errorf("named %q", name)
	}
	var manifest struct {
		Config desc
		Layers []desc
	}
	decode(blob(index.Manifests[0]), &manifest)
	var config struct {
		Config struct {
			Entrypoint, Env []string
			User            string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(blob(manifest.Config), &config)
	// The layer is not compressed, so that its two names are one.
	if config.Rootfs.DiffIDs[0] != manifest.Layers[0].Digest || config.Config.User != "70" || !strings.HasPrefix(config.Config.Env[0], "PATH=") {
		t.Errorf("%+v", config)
	}
	headers, files := entries(t, blob(manifest.Layers[0]))
	if h := headers["usr/local/bin/program"]; h == nil || h.Mode != 0o755 || string(files["usr/local/bin/program"]) != "#!/bin/sh\n" {
		t.Errorf("program: %+v", h)
	}
	if h := headers["bin"]; h == nil || h.Linkname != "usr/bin" {
		t.Errorf("link: %+v", h)
	}
	if h := headers["data/"]; h == nil || h.Uid != 70 || h.Mode != 0o700 {
		t.Errorf("owned directory: %+v", h)
	}
	if h := headers["tmp/"]; h == nil || h.Mode != 0o1777 {
		t.Errorf("/tmp: %+v", h)
	}
}

func TestEqualContentIsEqualBytes(t *testing.T) {
	if a, b := write(t, example(t)), write(t, example(t)); !bytes.Equal(a, b) {
		t.Error("two images of the same files differ")
	}
}

func TestFailedImageLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := image.NewFiles()
	gone := filepath.Join(dir, "gone")
	if err := os.WriteFile(gone, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Copy("/gone", gone); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := image.Write(filepath.Join(dir, "image.tar"), image.Spec{Name: "x", Files: f}); err == nil {
		t.Error("a missing file was no error")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
