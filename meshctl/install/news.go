package install

import (
	"fmt"
	"time"
)

// news remembers by component what was told of a rollout, so that what comes and goes
// is not told again and again: a count that is better than all before, at once; a kind
// of trouble, when it has stood for a while, and once.
type news map[string]*told

type told struct {
	wanted, best int
	done         bool
	// since is when each kind of trouble began that stands now.
	since map[string]time.Time
	// troubles are the kinds that were told.
	troubles map[string]bool
}

// of is the line to tell of a component that looks so now, or "".
func (n news) of(c Component, now time.Time) string {
	t := n[c.Name]
	if t == nil {
		t = &told{best: -1, troubles: map[string]bool{}}
		n[c.Name] = t
	}
	since := make(map[string]time.Time)
	fresh := false
	for _, trouble := range c.troubles {
		since[trouble] = now
		if begin, ok := t.since[trouble]; ok {
			since[trouble] = begin
		}
		if !t.troubles[trouble] && now.Sub(since[trouble]) >= settle {
			t.troubles[trouble], fresh = true, true
		}
	}
	t.since = since
	better := c.Wanted != t.wanted || c.Ready > t.best || c.Done != t.done && c.Done
	if c.Wanted != t.wanted {
		t.best = c.Ready
	}
	t.wanted, t.best = c.Wanted, max(t.best, c.Ready)
	t.done = t.done || c.Done
	switch {
	case fresh:
		return c.line()
	case !better:
		return ""
	case c.Done:
		return c.line()
	}
	return fmt.Sprintf("%s: %d/%d ready, rolling out", c.Name, c.Ready, c.Wanted)
}
