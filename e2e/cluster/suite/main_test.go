package suite_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/klog/v2"

	"github.com/tulle-mesh/tulle/e2e/cluster"
	"github.com/tulle-mesh/tulle/e2e/cluster/binaries"
	"github.com/tulle-mesh/tulle/e2e/cluster/topology"
)

// Bounds of the whole.
const (
	upWithin      = 5 * time.Minute
	installWithin = 5 * time.Minute
	downWithin    = 2 * time.Minute
)

// root is the checkout.
var root = func() string {
	dir, err := filepath.Abs("../../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// bin is where `make build cluster` puts programs.
func bin(name string) string { return filepath.Join(root, "bin", name) }

// logs is where everything that helps to understand a failure is kept.
var logs = filepath.Join(root, "out", "e2e")

// suite is what all tests share; TestMain sets it.
var suite *environment

func TestMain(m *testing.M) {
	flag.Parse()
	// What client-go tells of connections that a test closed.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		if os.Getenv("TULLE_FORBID_SKIP") == "1" {
			return 1, errors.New("the cluster needs root (and TULLE_FORBID_SKIP=1 forbids to skip)")
		}
		fmt.Println("e2e: skipped: the cluster needs root; run with sudo")
		return 0, nil
	}
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return 1, err
	}
	c := cluster.New(cluster.Config{Self: bin("cluster"), Output: os.Stdout})
	if !running() {
		if c, err = bringUp(ctx); c != nil {
			defer func() {
				keep := ""
				if code != 0 || err != nil {
					keep = filepath.Join(logs, "cluster")
				}
				down, cancel := context.WithTimeout(context.Background(), downWithin)
				defer cancel()
				err = errors.Join(err, c.Down(down, keep))
			}()
		}
		if err != nil {
			return 1, err
		}
	}
	if suite, err = connect(ctx, c); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// bringUp starts a cluster and installs the mesh. The cluster is nil when nothing was started.
func bringUp(ctx context.Context) (*cluster.Cluster, error) {
	module, err := binaries.Module(filepath.Join(root, "e2e", "cluster"))
	if err != nil {
		return nil, err
	}
	cache, err := binaries.DefaultCache()
	if err != nil {
		return nil, err
	}
	set, err := binaries.Ensure(ctx, module, cache, os.Stdout)
	if err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(root, "out", "images", "*.tar"))
	if err != nil || len(images) == 0 {
		return nil, errors.Join(err, errors.New("no images in out/images; run `make e2e`, which makes them"))
	}
	c := cluster.New(cluster.Config{Binaries: set, Self: bin("cluster"), Output: os.Stdout})
	if _, err := c.Topology(); err == nil {
		return nil, errors.New("a cluster is up already: end it with `make cluster-down`, or test on it with TULLE_E2E_RUNNING=1")
	}
	up, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	if err := c.Up(up, topology.Topology{Nodes: 3, DualStack: true}, images); err != nil {
		return c, err
	}
	installing, cancelInstall := context.WithTimeout(ctx, installWithin)
	defer cancelInstall()
	cmd := exec.CommandContext(installing, bin("meshctl"), "install")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return c, fmt.Errorf("meshctl install: %w", err)
	}
	fmt.Printf("mesh installed in %.1f s\n", time.Since(begun).Seconds())
	return c, nil
}
