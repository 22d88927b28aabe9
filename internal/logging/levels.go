package logging

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// Levels holds the level of every logger: a default, and exceptions by logger
// name ("xds" also covers "xds.client"). It is safe for concurrent use.
type Levels struct {
	initial string
	mu      sync.Mutex // serialises Set
	current atomic.Pointer[levelSet]
}

// levelSet is immutable once published.
type levelSet struct {
	fallback zapcore.Level
	byName   map[string]zapcore.Level
	lowest   zapcore.Level
}

func newLevels(spec string) (*Levels, error) {
	l := &Levels{initial: spec}
	l.current.Store(&levelSet{})
	if err := l.Set(spec); err != nil {
		return nil, err
	}
	return l, nil
}

// Set changes levels by a comma-separated list of LEVEL (for all loggers, which
// also drops earlier exceptions) and NAME:LEVEL. LEVEL is debug, info, warn or
// error. On an error nothing changes.
func (l *Levels) Set(spec string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.current.Load()
	next := &levelSet{fallback: old.fallback, byName: maps.Clone(old.byName)}
	for part := range strings.SplitSeq(spec, ",") {
		part = strings.TrimSpace(part)
		name, text, scoped := strings.Cut(part, ":")
		if !scoped {
			name, text = "", part
		}
		level, err := parseLevel(text)
		if err != nil {
			return fmt.Errorf("log level %q: %w", part, err)
		}
		switch {
		case !scoped:
			next.fallback, next.byName = level, nil
		case name == "":
			return fmt.Errorf("log level %q: the logger's name before the colon is empty", part)
		default:
			if next.byName == nil {
				next.byName = map[string]zapcore.Level{}
			}
			next.byName[name] = level
		}
	}
	next.lowest = next.fallback
	for _, level := range next.byName {
		next.lowest = min(next.lowest, level)
	}
	l.current.Store(next)
	return nil
}

func parseLevel(text string) (zapcore.Level, error) {
	switch text {
	case "debug":
		return zapcore.DebugLevel, nil
	case "info":
		return zapcore.InfoLevel, nil
	case "warn":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	}
	return 0, fmt.Errorf("want debug, info, warn or error")
}

// Reset goes back to the levels that the process started with.
func (l *Levels) Reset() {
	// The initial levels were accepted once.
	_ = l.Set(l.initial)
}

// String lists the levels in the form that Set takes.
func (l *Levels) String() string {
	s := l.current.Load()
	parts := []string{s.fallback.String()}
	for _, name := range slices.Sorted(maps.Keys(s.byName)) {
		parts = append(parts, name+":"+s.byName[name].String())
	}
	return strings.Join(parts, ",")
}

// Enabled reports whether a logger of that name writes entries of that level. It
// allocates nothing.
func (l *Levels) Enabled(name string, level zapcore.Level) bool {
	return l.current.Load().enabled(name, level)
}

func (s *levelSet) enabled(name string, level zapcore.Level) bool {
	for len(s.byName) > 0 && name != "" {
		if l, ok := s.byName[name]; ok {
			return level >= l
		}
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	return level >= s.fallback
}
