package kube

import (
	"sync"
	"time"
)

// health is how reading one kind goes. The zero value has not been read.
type health struct {
	mu     sync.Mutex
	synced bool // read completely, once
	err    error
	since  time.Time // of the first failure without a success since
}

func (h *health) fail(err error) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.err == nil
	if first {
		h.since = time.Now()
	}
	h.err = err
	return first
}

func (h *health) succeed() (wasFailing bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wasFailing = h.err != nil
	h.err = nil
	return wasFailing
}

func (h *health) setSynced(synced bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.synced = synced
}

func (h *health) isSynced() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.synced
}

func (h *health) failing() (err error, since time.Time, synced bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err, h.since, h.synced
}
