package roottest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Tool returns the path of a program that the module in dir names as its tool. It
// is built where that has not been done before, which for large ones takes minutes,
// so that a test in short mode is skipped.
func Tool(t testing.TB, dir, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a program")
	}
	// The go command keeps what it has linked for this; -n prints where.
	cmd := exec.Command(Program(t, "go"), "tool", "-n", name)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go tool -n %s in %s: %v\n%s", name, dir, err, exit.Stderr)
		}
		t.Fatalf("go tool -n %s in %s: %v", name, dir, err)
	}
	return strings.TrimSpace(string(out))
}
