package ca

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// tokenKey stands for a token, so that none is kept in memory.
type tokenKey [sha256.Size]byte

// reviewCache keeps a bounded number of answers. It is safe for concurrent use.
type reviewCache struct {
	max int

	mu      sync.Mutex
	entries map[tokenKey]*reviewEntry
	oldest  *list.List // of tokenKey, in the order of asking
}

// reviewEntry is a question and, once done is closed, its answer.
type reviewEntry struct {
	done   chan struct{}
	place  *list.Element
	until  time.Time // zero while under way; guarded by the cache's mutex
	caller Caller
	err    error
}

func newReviewCache(max int) *reviewCache {
	return &reviewCache{max: max, entries: map[tokenKey]*reviewEntry{}, oldest: list.New()}
}

// entry returns the entry of a token. first is true for who made it, and has to
// settle it.
func (c *reviewCache) entry(key tokenKey, now time.Time) (e *reviewEntry, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		if e.until.IsZero() || now.Before(e.until) {
			return e, false
		}
		c.remove(key, e)
	}
	// What falls out while under way is answered to who waits for it all the same.
	for len(c.entries) >= c.max {
		old := c.oldest.Front().Value.(tokenKey)
		c.remove(old, c.entries[old])
	}
	e = &reviewEntry{done: make(chan struct{})}
	e.place = c.oldest.PushBack(key)
	c.entries[key] = e
	return e, true
}

// settle gives the answer to all who wait, and keeps it until then unless it is
// none.
func (c *reviewCache) settle(key tokenKey, e *reviewEntry, caller Caller, err error, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.caller, e.err, e.until = caller, err, until
	close(e.done)
	if errors.Is(err, ErrUnavailable) && c.entries[key] == e {
		c.remove(key, e)
	}
}

func (c *reviewCache) remove(key tokenKey, e *reviewEntry) {
	delete(c.entries, key)
	c.oldest.Remove(e.place)
}
