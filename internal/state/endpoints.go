package state

import (
	"hash/maphash"
	"iter"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Endpoints is an immutable set of the workloads of one service, ordered by
// uid. The zero value is empty. It is a treap whose nodes carry the sums of
// their subtree, because a radix tree cannot answer "the n-th unit of weight"
// without visiting every endpoint for every connection.
type Endpoints struct{ root *endpoint }

type endpoint struct {
	w           *workload.Workload
	left, right *endpoint
	priority    uint64
	// Sums of the subtree, this node included.
	count, healthy             int
	totalWeight, healthyWeight uint64
}

// prioritySeed makes the treap's shape unpredictable to whoever chooses uids.
var prioritySeed = maphash.MakeSeed()

// Len counts all endpoints, Healthy those that are ready.
func (e Endpoints) Len() int { return e.root.counted() }

// Healthy counts the endpoints that are ready.
func (e Endpoints) Healthy() int {
	if e.root == nil {
		return 0
	}
	return e.root.healthy
}

// Weight is the sum of the capacities of all endpoints, or of the healthy ones.
func (e Endpoints) Weight(healthyOnly bool) uint64 { return e.root.weight(healthyOnly) }

// At returns the endpoint that owns the n-th unit of Weight(healthyOnly). It is
// nil when n is not less than that. It costs O(log n) and does not allocate.
func (e Endpoints) At(n uint64, healthyOnly bool) *workload.Workload {
	for at := e.root; at != nil; {
		left := at.left.weight(healthyOnly)
		if n < left {
			at = at.left
			continue
		}
		n -= left
		own := at.own(healthyOnly)
		if n < own {
			return at.w
		}
		n -= own
		at = at.right
	}
	return nil
}

// All visits the endpoints in the order of their uids.
func (e Endpoints) All() iter.Seq[*workload.Workload] {
	return func(yield func(*workload.Workload) bool) { e.root.visit(yield) }
}

// with returns the set with w in the place of a workload of the same uid.
func (e Endpoints) with(w *workload.Workload) Endpoints {
	return Endpoints{e.root.insert(w, maphash.String(prioritySeed, w.UID))}
}

// without returns the set without the workload of that uid.
func (e Endpoints) without(uid string) Endpoints { return Endpoints{e.root.remove(uid)} }

func (e *endpoint) counted() int {
	if e == nil {
		return 0
	}
	return e.count
}

func (e *endpoint) weight(healthyOnly bool) uint64 {
	switch {
	case e == nil:
		return 0
	case healthyOnly:
		return e.healthyWeight
	default:
		return e.totalWeight
	}
}

func (e *endpoint) own(healthyOnly bool) uint64 {
	if healthyOnly && !e.w.Healthy {
		return 0
	}
	return uint64(e.w.Capacity)
}

func (e *endpoint) visit(yield func(*workload.Workload) bool) bool {
	return e == nil || e.left.visit(yield) && yield(e.w) && e.right.visit(yield)
}

// join makes a node with the sums of its parts.
func join(w *workload.Workload, priority uint64, left, right *endpoint) *endpoint {
	e := &endpoint{w: w, priority: priority, left: left, right: right, count: 1}
	e.totalWeight, e.healthyWeight = e.own(false), e.own(true)
	if w.Healthy {
		e.healthy = 1
	}
	for _, child := range [...]*endpoint{left, right} {
		if child != nil {
			e.count += child.count
			e.healthy += child.healthy
			e.totalWeight += child.totalWeight
			e.healthyWeight += child.healthyWeight
		}
	}
	return e
}

func (e *endpoint) insert(w *workload.Workload, priority uint64) *endpoint {
	switch {
	case e == nil:
		return join(w, priority, nil, nil)
	case w.UID == e.w.UID:
		return join(w, e.priority, e.left, e.right)
	case w.UID < e.w.UID:
		left := e.left.insert(w, priority)
		if left.priority > e.priority {
			return join(left.w, left.priority, left.left, join(e.w, e.priority, left.right, e.right))
		}
		return join(e.w, e.priority, left, e.right)
	default:
		right := e.right.insert(w, priority)
		if right.priority > e.priority {
			return join(right.w, right.priority, join(e.w, e.priority, e.left, right.left), right.right)
		}
		return join(e.w, e.priority, e.left, right)
	}
}

func (e *endpoint) remove(uid string) *endpoint {
	switch {
	case e == nil:
		return nil
	case uid == e.w.UID:
		return merge(e.left, e.right)
	case uid < e.w.UID:
		left := e.left.remove(uid)
		if left == e.left {
			return e
		}
		return join(e.w, e.priority, left, e.right)
	default:
		right := e.right.remove(uid)
		if right == e.right {
			return e
		}
		return join(e.w, e.priority, e.left, right)
	}
}

// merge joins two treaps of which every key of the first is smaller.
func merge(left, right *endpoint) *endpoint {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.priority > right.priority:
		return join(left.w, left.priority, left.left, merge(left.right, right))
	default:
		return join(right.w, right.priority, merge(left, right.left), right.right)
	}
}
