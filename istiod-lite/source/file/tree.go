package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// identity tells two states of a file or directory apart without reading it.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func identify(info fs.FileInfo) identity {
	id := identity{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.dev, id.ino, id.ctime = uint64(st.Dev), st.Ino, st.Ctim.Nano()
	}
	return id
}

// sameFile ignores what changes when a file is written to.
func (id identity) sameFile(other identity) bool { return id.dev == other.dev && id.ino == other.ino }

// entry is one file to read.
type entry struct {
	name string // relative to the root, with slashes
	path string
	id   identity
	mod  time.Time
}

// tree is what a walk found.
type tree struct {
	files []entry // sorted by name
	dirs  map[string]identity
}

// walk lists the files to read below root, or root itself when it is a file.
// Links are followed.
func walk(root string) (tree, error) {
	t := tree{dirs: map[string]identity{}}
	info, err := os.Stat(root)
	if err != nil {
		return t, fmt.Errorf("read configuration: %w", err)
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return t, fmt.Errorf("read configuration: %s is neither a directory nor a regular file", root)
		}
		t.files = []entry{{name: filepath.Base(root), path: root, id: identify(info), mod: info.ModTime()}}
		return t, nil
	}
	if err := t.walkDir(root, "", info, nil); err != nil {
		return t, err
	}
	slices.SortFunc(t.files, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return t, nil
}

// walkDir reads one directory; above holds the directories that lead to it, to
// find links that point back.
func (t *tree) walkDir(path, name string, info fs.FileInfo, above []identity) error {
	id := identify(info)
	if slices.ContainsFunc(above, id.sameFile) {
		return fmt.Errorf("read configuration: %s is a symbolic link to a directory above it", path)
	}
	if len(above) >= maxDepth {
		return fmt.Errorf("read configuration: %s is more than %d directories deep", path, maxDepth)
	}
	above = append(above[:len(above):len(above)], id)
	t.dirs[path] = id
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		child, childName := filepath.Join(path, e.Name()), e.Name()
		if name != "" {
			childName = name + "/" + childName
		}
		info, err := os.Stat(child)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && !configuration(e.Name()) {
				continue // gone meanwhile, or a dangling link of no interest
			}
			return fmt.Errorf("read configuration: %w", err)
		}
		switch {
		case info.IsDir():
			if err := t.walkDir(child, childName, info, above); err != nil {
				return err
			}
		case !configuration(e.Name()):
		case !info.Mode().IsRegular():
			return fmt.Errorf("read configuration: %s is not a regular file", child)
		default:
			if len(t.files) >= maxFiles {
				return fmt.Errorf("read configuration: more than %d files below %s", maxFiles, path)
			}
			t.files = append(t.files, entry{name: childName, path: child, id: identify(info), mod: info.ModTime()})
		}
	}
	return nil
}

// configuration reports whether a file of this name is read.
func configuration(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
