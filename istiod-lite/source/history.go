package source

import (
	"slices"
	"sync"
)

// history tells which objects changed between two states of one Store.
type history struct {
	mu  sync.Mutex
	log []changed // by serial, ascending
	// forgotten is the last serial of which changes have left the log.
	forgotten uint64
}

// changed says that the object differs between the state of that serial and the
// one before it.
type changed struct {
	serial uint64
	key    Key
}

func (h *history) add(serial uint64, key Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.log) >= maxHistory {
		half := len(h.log) / 2
		h.forgotten = h.log[half-1].serial
		h.log = slices.Delete(h.log, 0, half)
	}
	h.log = append(h.log, changed{serial, key})
}

// since returns the keys that changed after the state from, up to and with the
// state to.
func (h *history) since(from, to uint64) ([]Key, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if from > to || from < h.forgotten {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(h.log, from+1, func(c changed, serial uint64) int {
		switch {
		case c.serial < serial:
			return -1
		case c.serial > serial:
			return 1
		}
		return 0
	})
	var keys []Key
	seen := map[Key]bool{}
	for _, c := range h.log[i:] {
		if c.serial > to {
			break
		}
		if !seen[c.key] {
			seen[c.key] = true
			keys = append(keys, c.key)
		}
	}
	return keys, true
}

// Changes returns the objects that may differ between since, an earlier state,
// and o, each once. It takes the time of the changes when both are states of one
// Store and not too many changes lie between, else that of comparing all
// objects. A nil since is an empty mesh.
func (o *Objects) Changes(since *Objects) []Key {
	if since == nil {
		since = &Objects{}
	}
	if o == since {
		return nil
	}
	if o.history != nil && o.history == since.history {
		if keys, ok := o.history.since(since.serial, o.serial); ok {
			return keys
		}
	}
	var keys []Key
	for _, kind := range kindNames {
		o.table(kind).differences(since.table(kind), func(name Name) { keys = append(keys, Key{kind, name}) })
	}
	return keys
}
