// Package binaries builds the programs of the cluster from the modules below
// build/, and keeps them in the user's cache directory under a key of everything
// that went into them, so that they are built once.
//
// A set's bin directory holds
//
//	kube                      every Kubernetes program and etcd, linked to by their names:
//	etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
//	coredns
//	containerd/               containerd, containerd-shim-runc-v2, ctr
//	cni/                      the plugins of a bridge network
//	pause
//
// and the link `current` beside the sets leads to the last one that was asked for.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// kubernetesVersion is of k8s.io/kubernetes in build/kube/go.mod; the programs only know it by the linker.
const kubernetesVersion = "v1.36.3"

// target is one run of `go build`.
type target struct {
	// module is the directory, below the module of the cluster, that it runs in.
	module string
	// out is relative to bin; with a trailing slash it is a directory for several packages.
	out      string
	packages []string
	flags    []string
}

func targets() []target {
	version := strings.Join([]string{
		"-s -w",
		"-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion, "-X k8s.io/component-base/version.gitMajor=1",
		"-X k8s.io/component-base/version.gitMinor=36", "-X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion,
	}, " ")
	stripped := []string{"-ldflags", "-s -w"}
	const containerd, plugins = "github.com/containerd/containerd/v2/cmd/", "github.com/containernetworking/plugins/plugins/"
	return []target{
		{"build/kube", "kube", []string{"."}, []string{"-ldflags", version}},
		{"build/coredns", "coredns", []string{"."}, stripped},
		{"build/containerd", "containerd/", []string{containerd + "containerd", containerd + "containerd-shim-runc-v2", containerd + "ctr"},
			// Storage drivers whose libraries or kernel parts nodes do not have.
			append([]string{"-tags", "no_btrfs no_zfs no_aufs no_devmapper"}, stripped...)},
		{"build/containerd", "cni/", []string{plugins + "ipam/host-local", plugins + "main/bridge", plugins + "main/ptp", plugins + "main/loopback", plugins + "meta/portmap"}, stripped},
		{".", "pause", []string{"./pause"}, stripped},
	}
}

// links are the names that the kube binary is called by.
var links = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// buildWithin bounds one go build; the slowest takes 9 minutes on two cores with nothing cached.
const buildWithin = 45 * time.Minute

// DefaultCache is where sets are kept.
func DefaultCache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place to keep binaries: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(base, "tulle", "cluster"), nil
}

// Ensure returns the bin directory of the set that belongs to the sources in
// module, the directory of the cluster's module; it builds what is missing.
func Ensure(ctx context.Context, module, cache string, output io.Writer) (string, error) {
	begun := time.Now()
	key, err := key(ctx, module)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, key)
	bin := filepath.Join(dir, "bin")
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err != nil {
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return "", err
		}
		for _, t := range targets() {
			fmt.Fprintf(output, "%7.1f s  building %s (minutes with an empty build cache)\n", time.Since(begun).Seconds(), t.out)
			if err := build(ctx, module, bin, t, output); err != nil {
				return "", err
			}
		}
		if err := finish(bin); err != nil {
			return "", err
		}
		if err := os.WriteFile(complete, nil, 0o644); err != nil {
			return "", err
		}
		fmt.Fprintf(output, "%7.1f s  binaries are in %s\n", time.Since(begun).Seconds(), bin)
	}
	return bin, point(filepath.Join(cache, "current"), key)
}

// key is a digest of the sources, the flags and the toolchain.
func key(ctx context.Context, module string) (string, error) {
	h := sha256.New()
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH", "GOEXPERIMENT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	fmt.Fprintf(h, "%s\n%v\n%v\n", version, targets(), links)
	var sources []string
	for _, pattern := range []string{"build/*/go.mod", "build/*/go.sum", "build/*/*.go", "pause/*.go"} {
		found, err := filepath.Glob(filepath.Join(module, pattern))
		if err != nil {
			return "", err
		}
		for _, f := range found {
			if !strings.HasSuffix(f, "_test.go") {
				sources = append(sources, f)
			}
		}
	}
	if len(sources) == 0 {
		return "", fmt.Errorf("%s: not the module of the cluster (no build/*/go.mod); run in a checkout of tulle", module)
	}
	slices.Sort(sources)
	for _, f := range sources {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		rel, _ := filepath.Rel(module, f)
		fmt.Fprintf(h, "%s %d\n%s\n", rel, len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func build(ctx context.Context, module, bin string, t target, output io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, buildWithin)
	defer cancel()
	out := filepath.Join(bin, t.out)
	if strings.HasSuffix(t.out, "/") {
		out += "/"
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", out}, t.flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, t.packages...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(module, t.module), output, output
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build in %s: %w", t.module, err)
	}
	return nil
}

// finish adds the links.
func finish(bin string) error {
	for _, name := range links {
		if err := point(filepath.Join(bin, name), "kube"); err != nil {
			return err
		}
	}
	return nil
}

// point makes link lead to target, in one step for whoever reads it.
func point(link, target string) error {
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, link); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// Module finds the directory of the cluster's module in a checkout: "" looks from
// where this program was compiled.
func Module(dir string) (string, error) {
	if dir == "" {
		_, file, _, ok := runtime.Caller(0)
		if !ok {
			return "", errors.New("this program does not know where its sources are; name the checkout with --source")
		}
		dir = filepath.Dir(filepath.Dir(file))
	}
	if _, err := os.Stat(filepath.Join(dir, "build", "kube", "go.mod")); err != nil {
		return "", fmt.Errorf("sources of the cluster: %w; name the directory e2e/cluster of a checkout with --source", err)
	}
	return dir, nil
}
