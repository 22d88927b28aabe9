package conformance_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/e2e/conformance"
)

// root is the checkout.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

var (
	// logs is where the report and everything that helps to understand a failure is kept.
	logs = filepath.Join(root, "out", "conformance")
	// reports is where a report of a whole run goes in which all is success.
	reports = flag.String("reports", "", "directory for the report of a run in which everything passed; as it is called by the Gateway API's rules")
)

// running tells whether the suite is to use the cluster and the mesh that run.
func running() bool { return os.Getenv("TULLE_E2E_RUNNING") == "1" }

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return 1, err
	}
	if running() {
		if os.Getenv("KUBECONFIG") == "" {
			if err := useCluster(ctx); err != nil {
				return 1, err
			}
		}
		return m.Run(), nil
	}
	if os.Geteuid() != 0 {
		if os.Getenv("TULLE_FORBID_SKIP") == "1" {
			return 1, errors.New("the cluster needs root (and TULLE_FORBID_SKIP=1 forbids to skip)")
		}
		fmt.Println("conformance: skipped: the cluster needs root; run with sudo")
		return 0, nil
	}
	if program(ctx, "cluster", "status").Run() == nil {
		return 1, errors.New("a cluster is up already: end it with `make cluster-down`, or use it and its mesh with TULLE_E2E_RUNNING=1")
	}
	defer func() {
		args := []string{"down"}
		if code != 0 || err != nil {
			args = append(args, "--keep-logs", filepath.Join(logs, "cluster"))
		}
		err = errors.Join(err, within(context.WithoutCancel(ctx), conformance.DownWithin, "cluster", args...))
	}()
	if err := bringUp(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// useCluster points KUBECONFIG at the cluster that runs on this machine.
func useCluster(ctx context.Context) error {
	out, err := program(ctx, "cluster", "status", "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("cluster status: %w", err)
	}
	var status struct{ Kubeconfig string }
	if err := json.Unmarshal(out, &status); err != nil {
		return fmt.Errorf("cluster status: %w", err)
	}
	return os.Setenv("KUBECONFIG", status.Kubeconfig)
}

// bringUp starts a cluster and installs the mesh.
func bringUp(ctx context.Context) error {
	images, err := filepath.Glob(filepath.Join(logs, "images", "*.tar"))
	if err != nil || len(images) == 0 {
		return errors.Join(err, errors.New("no images in out/conformance/images; run `make conformance`, which makes them"))
	}
	if err := within(ctx, conformance.UpWithin, "cluster", append([]string{"up"}, images...)...); err != nil {
		return err
	}
	if err := useCluster(ctx); err != nil {
		return err
	}
	begun := time.Now()
	if err := within(ctx, conformance.InstallWithin, "meshctl", "install"); err != nil {
		return err
	}
	fmt.Printf("mesh installed in %.1f s\n", time.Since(begun).Seconds())
	return nil
}

// program is one of bin, as `make conformance` builds them.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "cluster" {
		args = append([]string{"--source", filepath.Join(root, "e2e", "cluster")}, args...)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "bin", name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// within runs a program and shows what it says.
func within(ctx context.Context, limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := program(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}
