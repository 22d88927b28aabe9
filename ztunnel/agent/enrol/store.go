package enrol

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/internal/netns"
)

// record is what the state directory says of one pod.
type record struct {
	Pod
	// NS is the namespace that has the rules. Its path may lead to another one
	// after the pod is gone.
	NS    netns.ID  `json:"netns"`
	Since time.Time `json:"since"`
	// Joined: the proxy had acknowledged the pod when its rules came into force for
	// the first time, so a Running pod stays captured from here on, whatever the
	// proxy does.
	Joined bool `json:"joined,omitempty"`
	// Leaving: the pod was taken out, and its rules may still be there.
	Leaving bool `json:"leaving,omitempty"`
	// Gone: it leaves because it was deleted, so nothing of it needs time.
	Gone bool `json:"gone,omitempty"`
	// Left is when it began to leave.
	Left time.Time `json:"left,omitzero"`
	// Boot is the kernel's boot id: after a reboot neither namespaces nor rules
	// are there.
	Boot string `json:"boot"`
}

// store keeps one file a pod, written whole or not at all, for the owner only.
type store struct {
	dir  string
	boot string
	lock *os.File
}

// ErrLocked says that another agent uses the state directory.
var ErrLocked = errors.New("another node agent is using it")

// openStore makes the directory and locks it for the life of the process.
func openStore(dir string) (*store, error) {
	fail := func(err error) (*store, error) { return nil, fmt.Errorf("state directory %s: %w", dir, err) }
	if err := os.MkdirAll(filepath.Join(dir, "pods"), 0o700); err != nil {
		return fail(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fail(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return fail(err)
	}
	return &store{dir: filepath.Join(dir, "pods"), boot: strings.TrimSpace(string(boot)), lock: lock}, nil
}

func (s *store) close() error { return s.lock.Close() }

// load returns the records of this boot, and for each file that is not one an
// error that names it. Such files stay where they are.
func (s *store) load() ([]record, []error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, []error{err}
	}
	var records []record
	var errs []error
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		uid, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			os.Remove(path) // a write that was cut short
			continue
		}
		r, err := s.read(path)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		case r.Boot != s.boot:
			os.Remove(path)
		case r.UID != uid:
			errs = append(errs, fmt.Errorf("%s: holds pod %q", path, r.UID))
		default:
			records = append(records, r)
		}
	}
	return records, errs
}

func (s *store) read(path string) (record, error) {
	info, err := os.Stat(path)
	if err != nil {
		return record{}, err
	}
	if info.Size() > maxStateFile {
		return record{}, fmt.Errorf("%d bytes long, more than %d", info.Size(), maxStateFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	return decodeRecord(b)
}

func decodeRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, err
	}
	return r, r.validate()
}

func (s *store) save(r record) error {
	r.Boot = s.boot
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := s.write(s.path(r.UID), append(b, '\n')); err != nil {
		return fmt.Errorf("remember pod %s: %w", r.UID, err)
	}
	return nil
}

func (s *store) write(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
		return err
	}
	return s.syncDir()
}

func (s *store) forget(uid string) error {
	if err := os.Remove(s.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget pod %s: %w", uid, err)
	}
	return s.syncDir()
}

func (s *store) path(uid string) string { return filepath.Join(s.dir, uid+".json") }

func (s *store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
