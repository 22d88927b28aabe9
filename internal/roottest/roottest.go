// Package roottest holds the preconditions of tests that need more than a Go
// toolchain: root, network namespaces, foreign programs. A developer's machine
// may lack them and such tests are skipped there; where TULLE_FORBID_SKIP=1 is
// set, as in CI, the same lack is a failure.
package roottest

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// forbidSkip is the environment variable that turns skips into failures.
const forbidSkip = "TULLE_FORBID_SKIP"

// Require skips the test unless it may create network namespaces.
func Require(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root, to create network namespaces; run it as root or with sudo")
		return
	}
	if err := tryNamespace(); err != nil {
		Skip(t, "cannot create a network namespace: "+err.Error())
	}
}

// Program returns the path of an installed program, and skips the test when it
// is missing. debianPackage names what would install it.
func Program(t testing.TB, name string, debianPackage ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	// Daemons live in sbin, which an ordinary user's PATH may lack.
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	hint := name
	if len(debianPackage) > 0 {
		hint = debianPackage[0]
	}
	Skip(t, "needs the program "+name+"; install the Debian package "+hint)
	return ""
}

// Skip skips the test, or fails it where skips are forbidden.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(forbidSkip) == "1" {
		t.Fatalf("%s (and %s=1 forbids to skip)", reason, forbidSkip)
	}
	t.Skip(reason)
}

// tryNamespace makes a namespace on a thread that is thrown away with it.
func tryNamespace() error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes the namespace along.
		runtime.LockOSThread()
		result <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	return <-result
}
