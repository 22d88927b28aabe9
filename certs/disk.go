package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is what the state needs of a file system when it writes: the seam where
// tests let the process die between any two steps.
type disk interface {
	Create(path string, mode os.FileMode) (diskFile, error)
	Rename(from, to string) error
	SyncDir(path string) error
}

type diskFile interface {
	io.WriteCloser
	Sync() error
}

type realDisk struct{}

func (realDisk) Create(path string, mode os.FileMode) (diskFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

func (realDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (realDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const temporarySuffix = ".tmp"

// replaceFile gives path the content data: wholly or, when it fails or the
// process dies on the way, not at all. The temporary name is fixed because the
// directory's lock admits one writer, so that leftovers cannot pile up.
func replaceFile(d disk, path string, data []byte, mode os.FileMode) error {
	if err := sweep(path); err != nil {
		return err
	}
	temporary := path + temporarySuffix
	f, err := d.Create(temporary, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	if err := d.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// sweep removes what a writer of path left when it was killed.
func sweep(path string) error {
	err := os.Remove(path + temporarySuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ModeError says that a file with a private key may be read by others than its
// owner.
type ModeError struct {
	Path string
	Mode os.FileMode
}

func (e *ModeError) Error() string {
	return fmt.Sprintf("%s holds a private key and has mode %04o, want 0600: run \"chmod 600 %s\" if only you could reach it, "+
		"or treat the key as disclosed and start with an empty directory", e.Path, e.Mode.Perm(), e.Path)
}

// readState reads a file holding a private key.
func readState(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, &ModeError{Path: path, Mode: info.Mode()}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxStateBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxStateBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxStateBytes)
	}
	return data, nil
}
