package certs_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/certs"
)

var errDied = errors.New("the process is dead")

// dyingDisk carries out a number of steps and then fails for ever, as a process
// does that is killed. With lost set it is the machine that dies: what was not
// synced is lost.
type dyingDisk struct {
	left  int
	lost  bool
	died  bool
	files map[string]bool   // written, and whether synced
	moved map[string][]byte // renamed onto but directory not synced: old content, nil for none
}

func newDyingDisk(steps int, lost bool) *dyingDisk {
	return &dyingDisk{left: steps, lost: lost, files: map[string]bool{}, moved: map[string][]byte{}}
}

// step reports whether the process still lives to do it.
func (d *dyingDisk) step() error {
	if d.left == 0 && !d.died {
		d.died = true
		if d.lost {
			d.lose()
		}
	}
	if d.died {
		return errDied
	}
	d.left--
	return nil
}

func (d *dyingDisk) lose() {
	for path, synced := range d.files {
		if !synced {
			_ = os.Truncate(path, 0)
		}
	}
	for path, old := range d.moved {
		if old == nil {
			_ = os.Remove(path)
		} else {
			_ = os.WriteFile(path, old, 0o600)
		}
	}
}

func (d *dyingDisk) Create(path string, mode os.FileMode) (certs.DiskFile, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	d.files[path] = false
	return &dyingFile{f, d}, nil
}

func (d *dyingDisk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	old, err := os.ReadFile(to)
	if err != nil {
		old = nil
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	d.moved[to] = old
	return nil
}

func (d *dyingDisk) SyncDir(dir string) error {
	if err := d.step(); err != nil {
		return err
	}
	for path := range d.moved {
		if filepath.Dir(path) == dir {
			delete(d.moved, path)
		}
	}
	return nil
}

type dyingFile struct {
	*os.File
	disk *dyingDisk
}

func (f *dyingFile) Write(b []byte) (int, error) {
	if err := f.disk.step(); err != nil {
		// Killed in the middle of the write.
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f *dyingFile) Sync() error {
	if err := f.disk.step(); err != nil {
		return err
	}
	f.disk.files[f.Name()] = true
	return nil
}

// maxSteps is more than any operation takes, so that loops end.
const maxSteps = 100

func TestAKillAtAnyStepOfTheFirstStartLeavesAStartableDirectory(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for steps := range maxSteps {
			dir := filepath.Join(t.TempDir(), "ca")
			disk := newDyingDisk(steps, lost)
			a, err := certs.OpenAuthority(dir, certs.WithDisk(certs.AuthorityConfig{TrustDomain: td}, disk))
			if err == nil {
				// It has started. From now on the machine may die too.
				disk.lose()
				must(t, a.Close())
				b := open(t, dir, certs.AuthorityConfig{})
				if !b.Chain()[0].Equal(a.Chain()[0]) || !b.Chain()[1].Equal(a.Chain()[1]) {
					t.Error("an authority that had started was lost with the machine")
				}
				if steps < 12 {
					t.Errorf("the first start took only %d steps: the disk is not asked", steps)
				}
				break
			}
			if !errors.Is(err, errDied) {
				t.Fatalf("killed at step %d: %v", steps, err)
			}
			published, _ := os.ReadFile(filepath.Join(dir, certs.RootBundleFile))
			b := open(t, dir, certs.AuthorityConfig{})
			issue(t, b, identity("a", "b"), 0)
			if len(published) > 0 && string(published) != string(b.BundlePEM()) {
				t.Errorf("killed at step %d: another root than the one that was published", steps)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
				t.Errorf("killed at step %d: %v left", steps, left)
			}
		}
	}
}

func TestAKillAtAnyStepOfARenewalKeepsTheAuthorityWorking(t *testing.T) {
	start := time.Now()
	for _, lost := range []bool{false, true} {
		for steps := range maxSteps {
			dir := filepath.Join(t.TempDir(), "ca")
			c := &clock{start}
			old := open(t, dir, certs.AuthorityConfig{Now: c.Now})
			before := old.Chain()
			must(t, old.Close())

			disk := newDyingDisk(steps, lost)
			a, err := certs.OpenAuthority(dir, certs.WithDisk(certs.AuthorityConfig{TrustDomain: td, Now: c.Now}, disk))
			must(t, err)
			c.now = start.Add(certs.DefaultIntermediateTTL * 3 / 4)
			// The disk fails but the old intermediate is good: signing goes on.
			issue(t, a, identity("a", "b"), 0)
			issue(t, a, identity("a", "b"), 0)
			died := disk.died
			if renewed := !a.Chain()[0].Equal(before[0]); renewed == died {
				t.Fatalf("died %v at step %d, renewed %v", died, steps, renewed)
			}
			must(t, a.Close())

			b := open(t, dir, certs.AuthorityConfig{Now: c.Now})
			issue(t, b, identity("a", "b"), 0)
			if !b.Chain()[1].Equal(before[1]) {
				t.Fatalf("killed at step %d: another root", steps)
			}
			must(t, b.Close())
			if !died {
				break
			}
		}
	}
}

func TestAFullDiskDoesNotStopSigningAndIsRetried(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Now()}
	must(t, open(t, dir, certs.AuthorityConfig{Now: c.Now}).Close())
	disk := newDyingDisk(0, false)
	a, err := certs.OpenAuthority(dir, certs.WithDisk(certs.AuthorityConfig{TrustDomain: td, Now: c.Now}, disk))
	must(t, err)
	defer a.Close()
	before := a.Chain()[0]
	c.now = c.now.Add(certs.DefaultIntermediateTTL * 3 / 4)
	issue(t, a, identity("a", "b"), 0)
	disk.left, disk.died = maxSteps, false // there is room again
	issue(t, a, identity("a", "b"), 0)
	if !a.Chain()[0].Equal(before) {
		t.Error("retried at once, while someone waits for a signature")
	}
	c.now = c.now.Add(2 * time.Minute)
	issue(t, a, identity("a", "b"), 0)
	if a.Chain()[0].Equal(before) {
		t.Error("not retried later")
	}
}

const killChildEnv = "TULLE_TEST_AUTHORITY_DIR"

// killChild signs for ever, in leaps of time that make every signature renew
// the intermediate, and prints the root.
func killChild(dir string) {
	id := identity("a", "b")
	for {
		// From the present again each time, so that the root never comes to
		// its end.
		c := &clock{time.Now()}
		a, err := certs.OpenAuthority(dir, certs.AuthorityConfig{TrustDomain: td, Now: c.Now})
		orExit(err)
		for range 5 {
			_, csr, err := certs.NewRequest(id)
			orExit(err)
			_, err = a.Sign(csr, id, 0)
			orExit(err)
			fmt.Println("root", certs.SerialText(a.Chain()[1].SerialNumber))
			c.now = c.now.Add(certs.DefaultIntermediateTTL * 3 / 4)
		}
		orExit(a.Close())
	}
}

func orExit(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func TestAKilledProcessLeavesAStartableDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	root := ""
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killChildEnv+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		// Read a varying number of lines, then kill it wherever it is.
		for range 1 + round*7%20 {
			if !lines.Scan() {
				break
			}
			if word, serial, _ := strings.Cut(lines.Text(), " "); word == "error" {
				t.Errorf("round %d: %s", round, lines.Text())
			} else if word == "root" {
				if root == "" {
					root = serial
				}
				if serial != root {
					t.Errorf("round %d: root %s, want %s", round, serial, root)
				}
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if t.Failed() {
			return
		}
	}
	if root == "" {
		t.Fatal("no child ever signed")
	}
	a := open(t, dir, certs.AuthorityConfig{})
	_, _, err := certs.LocalSigner{Authority: a}.Sign(t.Context(), identity("a", "b"))
	must(t, err)
}
