package file

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// maxSettles bounds how often a reading is put off for a file that is being
// written: a steady writer is read all the same.
const maxSettles = 3

// watch reads the tree now, after each burst of kernel events and at every
// poll, until ctx ends.
func (s *Source) watch(ctx context.Context) error {
	poll := s.cfg.Poll
	w := &watcher{source: s, watched: map[string]identity{}}
	if notify, err := fsnotify.NewWatcher(); err != nil {
		s.log.Warn("no file events, the configuration is polled", zap.Error(err), zap.Duration("every", pollUnwatched))
		poll = min(poll, pollUnwatched)
	} else {
		defer notify.Close()
		w.notify = notify
		// The parent tells when the root itself is replaced, which a watch on
		// the old one does not.
		if err := notify.Add(filepath.Dir(s.cfg.Path)); err != nil {
			s.log.Debug("parent directory cannot be watched", zap.Error(err))
		}
	}
	unsettled := s.read(w)

	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	var (
		events  <-chan fsnotify.Event
		errs    <-chan error
		timer   = time.NewTimer(0)
		pending bool // a reading is due
		puts    int  // readings of this burst and the one to come; 0 while only a late one is due
	)
	if !timer.Stop() {
		<-timer.C
	}
	defer timer.Stop()
	if w.notify != nil {
		events, errs = w.notify.Events, w.notify.Errors
	}
	begin := func() {
		if !pending || puts == 0 {
			pending, puts = true, 1
			timer.Reset(settle)
		}
	}
	if unsettled {
		begin()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			if s.concerns(ev) {
				begin()
			}
		case err := <-errs:
			// An overflow of the kernel's queue lost events: read everything.
			s.log.Warn("file events", zap.Error(err))
			begin()
		case <-ticker.C:
			begin()
		case <-timer.C:
			unsettled = s.read(w)
			switch {
			case unsettled && puts < maxSettles:
				puts++
				timer.Reset(writingAge)
			case unsettled:
				// Not waited for any longer, but looked at again.
				puts = 0
				timer.Reset(emptyAge)
			default:
				pending = false
			}
		}
	}
}

// concerns reports whether an event may change the configuration: anything in
// a watched directory, but of the parent's only what happens to the root.
func (s *Source) concerns(ev fsnotify.Event) bool {
	if ev.Op == fsnotify.Chmod {
		return false // access times and the like; the poll sees new permissions
	}
	return filepath.Dir(ev.Name) != filepath.Dir(s.cfg.Path) || filepath.Clean(ev.Name) == s.cfg.Path
}

type watcher struct {
	source  *Source
	notify  *fsnotify.Watcher
	watched map[string]identity
}

// read loads the tree and brings the watches in line with it, and loads again
// when a directory was new: what changed between the two was not watched.
func (s *Source) read(w *watcher) (unsettled bool) {
	for range maxDepth {
		unsettled = s.Load()
		if !w.follow() {
			break
		}
	}
	return unsettled
}

// follow watches the tree's directories and reports whether any is new.
func (w *watcher) follow() (added bool) {
	if w.notify == nil {
		return false
	}
	w.source.loading.Lock()
	dirs := w.source.dirs
	w.source.loading.Unlock()
	for path, id := range w.watched {
		if now, ok := dirs[path]; !ok || !now.sameFile(id) {
			w.notify.Remove(path) // fails when the kernel has removed it already
			delete(w.watched, path)
		}
	}
	for path, id := range dirs {
		if _, ok := w.watched[path]; ok {
			continue
		}
		if err := w.notify.Add(path); err != nil {
			w.source.log.Warn("directory cannot be watched, it is polled", zap.String("path", path), zap.Error(err))
			continue
		}
		w.watched[path] = id
		added = true
	}
	return added
}
