package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Config configures a Store.
type Config struct {
	// ClusterID is the cluster of this node's pods; empty is
	// workload.DefaultClusterID.
	ClusterID string
	// Logger tells of policies that are understood only in part; nil is silent.
	Logger *zap.Logger
}

// Store keeps the current Snapshot. It is safe for concurrent use. It has no
// goroutine and needs no closing.
type Store struct {
	current atomic.Pointer[Snapshot]
	logger  *zap.Logger
	// mu serialises writers, from reading the current snapshot to publishing the
	// next one.
	mu sync.Mutex
}

// New returns a Store with an empty snapshot at version 0.
func New(cfg Config) *Store {
	if cfg.ClusterID == "" {
		cfg.ClusterID = workload.DefaultClusterID
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	s := &Store{logger: cfg.Logger}
	s.current.Store(newSnapshot(cfg.ClusterID))
	return s
}

// Snapshot returns the mesh as it is known now. It never returns nil and does
// not block.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// Changed returns a channel that is closed at the next change. To miss nothing,
// take the channel from the Snapshot that was looked at instead.
func (s *Store) Changed() <-chan struct{} { return s.Snapshot().Changed() }

// ErrNotAnnounced is the error of WaitWorkload when the time is up.
var ErrNotAnnounced = errors.New("the control plane has not announced the workload")

// WaitWorkload returns the workload that find finds in a snapshot, waiting for
// newer snapshots until ctx ends. The error then wraps ErrNotAnnounced and the
// cause of ctx.
func (s *Store) WaitWorkload(ctx context.Context, find func(*Snapshot) *workload.Workload) (*workload.Workload, error) {
	for {
		snap := s.Snapshot()
		if w := find(snap); w != nil {
			return w, nil
		}
		select {
		case <-snap.Changed():
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNotAnnounced, context.Cause(ctx))
		}
	}
}

// publish makes next current and wakes those who wait on the one before. The
// caller holds mu.
func (s *Store) publish(next *Snapshot) {
	last := s.current.Load()
	next.version = last.version + 1
	next.changed = make(chan struct{})
	s.current.Store(next)
	close(last.changed)
}
