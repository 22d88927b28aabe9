package kube

import (
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/ztunnel/agent/sandbox"
)

// scan shares a look at the node's processes between pods that need one at the
// same time: a namespace full of pods that is labelled costs one look, not one
// each.
type scan struct {
	finder Finder

	mu    sync.Mutex
	at    time.Time
	asked []string
	found map[string]sandbox.Sandbox
}

// find looks for uid; all are the UIDs that others may ask for. What it returns
// is at most scanAge old.
func (s *scan) find(uid string, all []string) (sandbox.Sandbox, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) > scanAge || !slices.Contains(s.asked, uid) {
		asked := append(all, uid)
		found, err := s.finder.Find(asked)
		if err != nil {
			return sandbox.Sandbox{}, false, err
		}
		s.at, s.asked, s.found = time.Now(), asked, found
	}
	box, ok := s.found[uid]
	return box, ok, nil
}
