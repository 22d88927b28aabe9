// Package image writes OCI images without a container engine: one uncompressed
// layer (decompression would cost each node more than the bytes do), the same
// bytes for the same content, in an archive that `ctr images import` takes.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Spec is one image.
type Spec struct {
	// Name is the full reference, as pods name it: registry/repository:tag.
	Name string
	// Entrypoint and Command are the container's defaults.
	Entrypoint, Command []string
	// Env is the environment; without a PATH it gets the usual one.
	Env []string
	// User is "uid", "uid:gid" or a name of the image's /etc/passwd; "" is root.
	User string
	// Files are the layer's content.
	Files *Files
}

// Files collects the content of a layer. The zero value is not usable; see NewFiles.
type Files struct{ entries map[string]entry }

type entry struct {
	mode fs.FileMode
	// Exactly one of them is set for anything but a directory.
	source  string
	content []byte
	link    string
	uid     int
}

// NewFiles has /tmp, which programs expect of any system.
func NewFiles() *Files {
	f := &Files{entries: map[string]entry{}}
	f.Dir("/tmp", fs.ModeSticky|0o777)
	return f
}

func clean(at string) string { return strings.Trim(path.Clean("/"+at), "/") }

func (f *Files) put(at string, e entry) {
	at = clean(at)
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		if _, ok := f.entries[dir]; !ok {
			f.entries[dir] = entry{mode: fs.ModeDir | 0o755}
		}
	}
	f.entries[at] = e
}

// Dir adds an empty directory.
func (f *Files) Dir(at string, mode fs.FileMode) { f.put(at, entry{mode: fs.ModeDir | mode}) }

// OwnedDir adds an empty directory that belongs to uid.
func (f *Files) OwnedDir(at string, mode fs.FileMode, uid int) {
	f.put(at, entry{mode: fs.ModeDir | mode, uid: uid})
}

// Content adds a file of the given content.
func (f *Files) Content(at string, mode fs.FileMode, content string) {
	f.put(at, entry{mode: mode, content: []byte(content)})
}

// Link adds a symbolic link.
func (f *Files) Link(at, target string) { f.put(at, entry{mode: fs.ModeSymlink | 0o777, link: target}) }

// Copy adds a file of the host, following links, with its permissions.
func (f *Files) Copy(at, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", source)
	}
	f.put(at, entry{mode: info.Mode().Perm(), source: source})
	return nil
}

// CopyTree adds a directory of the host at the same place, except what skip names
// by its base name.
func (f *Files) CopyTree(dir string, skip ...string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(skip, d.Name()) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			f.Dir(p, 0o755)
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err == nil {
				f.Link(p, target)
			}
			return err
		default:
			return f.Copy(p, p)
		}
	})
}

const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// env has a PATH, the image's own or every system's.
func (s Spec) env() []string {
	if slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		return s.Env
	}
	return append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, s.Env...)
}

// epoch is the time of everything in an image, so that equal content is equal bytes.
var epoch = time.Unix(0, 0).UTC()

// Write writes the image's archive to out, which is replaced only when it is complete.
func Write(out string, s Spec) (err error) {
	if s.Name == "" || s.Files == nil {
		return errors.New("image: no name or no files")
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	layer, err := os.CreateTemp(filepath.Dir(out), ".layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	counted := &digester{w: layer, h: sha256.New()}
	if err := s.Files.write(counted); err != nil {
		return fmt.Errorf("image %s: %w", s.Name, err)
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	archive, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return err
	}
	defer func() {
		archive.Close()
		if err != nil {
			os.Remove(archive.Name())
		}
	}()
	if err := s.assemble(archive, layer, counted.descriptor(layerType)); err != nil {
		return fmt.Errorf("image %s: %w", s.Name, err)
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := os.Chmod(archive.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(archive.Name(), out)
}

// assemble writes the archive: layer, configuration, manifest and index, each named by its digest.
func (s Spec) assemble(w io.Writer, layer io.Reader, layerDesc descriptor) error {
	platform := map[string]string{"architecture": runtime.GOARCH, "os": "linux"}
	config, err := json.Marshal(map[string]any{
		"architecture": platform["architecture"], "os": platform["os"], "created": epoch,
		"config": map[string]any{
			"Entrypoint": s.Entrypoint, "Cmd": s.Command, "User": s.User, "WorkingDir": "/",
			"Env": s.env(),
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDesc.Digest}},
	})
	if err != nil {
		return err
	}
	configDesc := describe(configType, config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": configDesc, "layers": []descriptor{layerDesc},
	})
	if err != nil {
		return err
	}
	manifestDesc := describe(manifestType, manifest)
	manifestDesc.Platform = platform
	manifestDesc.Annotations = map[string]string{"io.containerd.image.name": s.Name, "org.opencontainers.image.ref.name": s.Name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifestDesc}})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	put := func(name string, size int64, r io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: epoch}); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	blob := func(d descriptor, r io.Reader) error {
		return put("blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:"), d.Size, r)
	}
	const layout = `{"imageLayoutVersion":"1.0.0"}`
	return errors.Join(
		put("oci-layout", int64(len(layout)), strings.NewReader(layout)),
		put("index.json", int64(len(index)), bytes.NewReader(index)),
		blob(manifestDesc, bytes.NewReader(manifest)), blob(configDesc, bytes.NewReader(config)), blob(layerDesc, layer),
		tw.Close(),
	)
}

// write writes the layer.
func (f *Files) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	names := make([]string, 0, len(f.entries))
	for name := range f.entries {
		names = append(names, name)
	}
	// Directories come before what is in them.
	slices.Sort(names)
	for _, name := range names {
		if err := f.entries[name].write(tw, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return tw.Close()
}

func (e entry) write(tw *tar.Writer, name string) error {
	h := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), ModTime: epoch, Uid: e.uid, Gid: e.uid}
	if e.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(h)
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		return tw.WriteHeader(h)
	case e.source == "":
		h.Size = int64(len(e.content))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(e.content)
		return err
	}
	file, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, file)
	return err
}

type digester struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (d *digester) Write(b []byte) (int, error) {
	n, err := d.w.Write(b)
	d.h.Write(b[:n])
	d.n += int64(n)
	return n, err
}

func (d *digester) descriptor(mediaType string) descriptor {
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(d.h.Sum(nil)), Size: d.n}
}

func describe(mediaType string, b []byte) descriptor {
	sum := sha256.Sum256(b)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b))}
}
