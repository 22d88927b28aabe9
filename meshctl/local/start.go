package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// SuperviseCommand is the hidden command line of meshctl that becomes the
// supervisor; its settings follow as JSON.
var SuperviseCommand = []string{"local", "supervise"}

// startTimeout bounds how long a supervisor may take until it answers. Making
// namespaces takes milliseconds; a machine that is short of memory takes longer.
const startTimeout = 30 * time.Second

// Start opens the mesh of settings.StateDir, and starts its supervisor when none
// runs. started tells which.
func Start(ctx context.Context, settings control.Settings) (mesh *Mesh, started bool, err error) {
	if len(settings.StateDir) > control.MaxStatePath {
		return nil, false, fmt.Errorf("--state-dir %s: %d bytes long; sockets in it allow at most %d: choose a shorter one", settings.StateDir, len(settings.StateDir), control.MaxStatePath)
	}
	mesh, err = Open(ctx, settings.StateDir)
	if err == nil || !errors.Is(err, ErrNotRunning) {
		return mesh, false, err
	}
	dir := control.StateDir(settings.StateDir)
	if err := claim(dir); err != nil {
		return nil, false, fmt.Errorf("--state-dir: %w", err)
	}
	if err := os.MkdirAll(dir.Logs(), 0o700); err != nil {
		return nil, false, fmt.Errorf("--state-dir: %w", err)
	}
	if err := spawn(dir, settings); err != nil {
		return nil, false, err
	}
	mesh, err = Open(ctx, settings.StateDir)
	return mesh, true, err
}

// claim makes the state folder, or makes sure that an existing one is a mesh's or
// empty.
func claim(dir control.StateDir) error {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(dir.Marker()); err == nil {
		return nil
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty and was not made by meshctl; name a new or empty folder", dir)
	}
	return os.WriteFile(dir.Marker(), []byte("The state of a local mesh; `meshctl local down` removes it.\n"), 0o600)
}

// spawn starts a supervisor in namespaces of its own and waits until it answers
// or says why it cannot.
func spawn(dir control.StateDir, settings control.Settings) error {
	log, err := os.OpenFile(dir.Log("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	euid := os.Geteuid()
	settings.Rootless = euid != 0
	cmd, report, err := launch(log, settings)
	if err != nil && euid == 0 && errors.Is(err, syscall.EPERM) {
		// Root without CAP_SYS_ADMIN, as in most containers: be the root of a user
		// namespace like everybody else.
		settings.Rootless = true
		cmd, report, err = launch(log, settings)
	}
	if err != nil {
		return startError(err)
	}
	defer report.Close()
	if err := os.WriteFile(dir.PIDFile(), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(report)
		said <- strings.TrimSpace(string(text))
	}()
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	var text string
	select {
	case text = <-said:
	case <-timer.C:
		text = fmt.Sprintf("it does not answer after %v", startTimeout)
	}
	if text == "ready" {
		return cmd.Process.Release()
	}
	cmd.Process.Kill()
	cmd.Wait()
	if text == "" {
		text = "it ended at once"
	}
	return fmt.Errorf("start the supervisor: %s (log: %s)", text, dir.Log("supervisor"))
}

func launch(log *os.File, settings control.Settings) (*exec.Cmd, *os.File, error) {
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, nil, err
	}
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer reportEnd.Close()
	cmd := exec.Command("/proc/self/exe", append(append([]string{}, SuperviseCommand...), string(config))...)
	cmd.Args[0] = "meshctl"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{reportEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if settings.Rootless {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	// The supervisor outlives whoever called us: a lock or a pipe of theirs that it
	// and its pods kept open would hang what waits for its end. Kernels before
	// 5.11 do not know the flag and inherit on.
	_ = unix.CloseRange(reportFile, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err := cmd.Start(); err != nil {
		report.Close()
		return nil, nil, err
	}
	return cmd, report, nil
}

// startError says what to do when the kernel refuses namespaces.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("make the namespaces of the mesh: %w: this system does not let ordinary users make them; run meshctl as root, or allow it (sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0)", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("make the namespaces of the mesh: %w: raise user.max_user_namespaces, user.max_net_namespaces and user.max_pid_namespaces", err)
	}
	return fmt.Errorf("make the namespaces of the mesh: %w", err)
}

// reportFile is the descriptor that a supervisor inherits from its starter.
const reportFile = 3

// Report is where a supervisor tells its starter "ready" or what is wrong. It
// can be asked for once.
func Report() *os.File {
	syscall.CloseOnExec(reportFile) // or pods would keep the starter waiting
	return os.NewFile(reportFile, "report")
}

// DefaultStateDir is where the mesh called name keeps its state.
func DefaultStateDir(name string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/tulle", name), nil
	}
	if base := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "tulle", name), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w; say with --state-dir where to keep the mesh's state", err)
	}
	return filepath.Join(home, ".local", "state", "tulle", name), nil
}
