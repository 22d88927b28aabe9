package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/meshctl/local/control"
)

// downTimeout bounds an orderly end; after it the supervisor is killed, which
// ends everything too.
const downTimeout = 90 * time.Second

// Down ends the mesh of a state folder and removes what it kept there. It does
// so too when the supervisor was killed or does not answer. It returns
// ErrNotRunning when there was nothing at all.
func Down(ctx context.Context, stateDir string, progress func(string)) error {
	dir := control.StateDir(stateDir)
	if _, err := os.Stat(stateDir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w with --state-dir %s", ErrNotRunning, stateDir)
	}
	if _, err := os.Stat(dir.Marker()); err != nil {
		return fmt.Errorf("%w with --state-dir %s, which is not a folder of meshctl's", ErrNotRunning, stateDir)
	}
	mesh, err := Open(ctx, stateDir)
	switch {
	case err == nil:
		orderly, cancel := context.WithTimeout(ctx, downTimeout)
		if err := mesh.down(orderly, progress); err != nil {
			progress("the supervisor does not end by itself (" + err.Error() + "), killing it")
			kill(dir)
		}
		cancel()
	case errors.Is(err, ErrNotRunning):
		progress("no supervisor runs; removing what it left")
		kill(dir) // one that hangs before it answers
	default:
		return err
	}
	if err := awaitEnd(ctx, dir); err != nil {
		return err
	}
	for _, name := range dir.Entries() {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			return err
		}
	}
	err = os.Remove(stateDir)
	if errors.Is(err, unix.ENOTEMPTY) {
		progress(stateDir + " holds files that are not the mesh's; they are left")
		return nil
	}
	return err
}

// kill ends the supervisor of a folder, if the process that the PID file names
// is one.
func kill(dir control.StateDir) {
	pid := supervisorPID(dir)
	if pid == 0 {
		return
	}
	unix.Kill(pid, unix.SIGKILL)
}

// supervisorPID returns the process number of the folder's supervisor, 0 when
// none lives.
func supervisorPID(dir control.StateDir) int {
	data, err := os.ReadFile(dir.PIDFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	// The number may be another process's by now.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(line), "supervise\x00") || !strings.Contains(string(line), strconv.Quote(string(dir))) {
		return 0
	}
	return pid
}

// awaitEnd waits until nobody holds the lock.
func awaitEnd(ctx context.Context, dir control.StateDir) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	f, err := os.OpenFile(dir.Lock(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the supervisor of %s does not end: %w", dir, ctx.Err())
		}
	}
}
