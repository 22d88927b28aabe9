package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies lists the roots in which a node's pods get their cgroups: each
// controller's of version 1, or the single one of version 2. A version 2
// hierarchy besides those of version 1 needs no preparation; runc makes what it
// uses there.
func hierarchies() (roots []string, v2 bool, err error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, true, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		root := filepath.Join(cgroupRoot, e.Name())
		// Hierarchies of several controllers have links by the single names.
		if info, err := os.Lstat(root); err == nil && info.IsDir() && e.Name() != "unified" {
			roots = append(roots, root)
		}
	}
	if len(roots) == 0 {
		return nil, false, errors.New("no cgroup hierarchy is mounted on " + cgroupRoot)
	}
	return roots, false, nil
}

// makeCgroups makes the node's cgroup, in which its kubelet makes those of the pods.
func makeCgroups(n topology.Node) error {
	roots, v2, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		parent := filepath.Join(root, topology.Cgroup)
		dir := filepath.Join(parent, n.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		prepare := prepareV1
		if v2 {
			prepare = prepareV2
		}
		for _, d := range []string{parent, dir} {
			if err := prepare(root, d); err != nil {
				return fmt.Errorf("cgroup %s: %w", d, err)
			}
		}
	}
	return nil
}

// prepareV1 gives a new cpuset what all have: it is born empty and takes no process so.
func prepareV1(root, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		all, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), all, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// prepareV2 passes every controller on to the cgroups below dir.
func prepareV2(root, dir string) error {
	for _, d := range []string{root, dir} {
		names, err := os.ReadFile(filepath.Join(d, "cgroup.controllers"))
		if err != nil {
			return err
		}
		enable := ""
		for _, name := range strings.Fields(string(names)) {
			enable += " +" + name
		}
		if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(enable), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the cgroups below name, "" for all of the cluster's. It
// waits while the kernel still takes processes apart.
func removeCgroups(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, cgroupsWithin)
	defer cancel()
	tops, err := filepath.Glob(filepath.Join(cgroupRoot, "*", topology.Cgroup, name))
	if err != nil {
		return err
	}
	tops = append(tops, filepath.Join(cgroupRoot, topology.Cgroup, name))
	return poll(ctx, "cgroups are still in use", func() error {
		var errs []error
		for _, top := range tops {
			errs = append(errs, removeTree(top))
		}
		return errors.Join(errs...)
	})
}

// removeTree removes directories from the leaves up; the files of a cgroup go with it.
func removeTree(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
