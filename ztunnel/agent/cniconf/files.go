package cniconf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
)

// FileName is our configuration's. It sorts before the names that other plugins
// choose to be first.
const FileName = "00-00-tulle.conflist"

// extensions are those that runtimes look for.
var extensions = []string{".conf", ".conflist", ".json"}

// errNoPrimary says that nobody but us configured a network.
var errNoPrimary = errors.New("no other CNI configuration is there; the node has no network plugin yet")

// primary finds the file that a runtime would take if ours were not there.
func primary(dir string) (string, error) {
	files, err := libcni.ConfFiles(dir, extensions)
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	for _, f := range files {
		if filepath.Base(f) != FileName {
			return f, nil
		}
	}
	return "", errNoPrimary
}

// first tells whether ours is the file that a runtime takes.
func first(dir string) (bool, error) {
	files, err := libcni.ConfFiles(dir, extensions)
	if err != nil || len(files) == 0 {
		return false, err
	}
	return filepath.Base(slices.Min(files)) == FileName, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(b) > maxConf {
		err = fmt.Errorf("longer than %d bytes", maxConf)
	}
	return b, err
}

// replace writes path whole or not at all, and not when it says the same
// already. The temporary name is none that a runtime looks for.
func replace(path string, content io.Reader, mode fs.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tulle-new")
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
	}
	return err
}

// state tells whether a file is the one of before, without reading it.
type state struct {
	size     int64
	modified time.Time
	info     fs.FileInfo
}

func (s state) same(path string) bool {
	now, err := os.Stat(path)
	return err == nil && s.info != nil && os.SameFile(now, s.info) && now.Size() == s.size &&
		now.ModTime().Equal(s.modified) && now.Mode().Perm() == programMode
}

const programMode = 0o755

// installProgram copies the program to the directory of plugins, where it is
// not there already; a plugin that runs meanwhile keeps the old one.
func installProgram(program, dir string) (now state, changed bool, err error) {
	target := filepath.Join(dir, cni.Type)
	fail := func(err error) (state, bool, error) {
		return state{}, false, fmt.Errorf("install CNI plugin %s: %w", target, err)
	}
	want, err := hash(program)
	if err != nil {
		return fail(err)
	}
	info, err := os.Stat(target)
	have, hashErr := hash(target)
	if err != nil || hashErr != nil || !bytes.Equal(want, have) || info.Mode().Perm() != programMode {
		f, err := os.Open(program)
		if err != nil {
			return fail(err)
		}
		defer f.Close()
		if err := replace(target, f, programMode); err != nil {
			return fail(err)
		}
		if info, err = os.Stat(target); err != nil {
			return fail(err)
		}
		changed = true
	}
	return state{size: info.Size(), modified: info.ModTime(), info: info}, changed, nil
}

func hash(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// Remove takes the plugin out of the node's chain. Its program goes with
// RemoveProgram when runtimes have read that.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove CNI configuration: %w", err)
	}
	return nil
}

// RemoveProgram removes what was installed into the directory of plugins.
func RemoveProgram(dir string) error {
	if err := os.Remove(filepath.Join(dir, cni.Type)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove CNI plugin: %w", err)
	}
	return nil
}
