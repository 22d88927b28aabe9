package jsonfault

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Fault is one value that does not fit.
type Fault struct {
	// Path is that of its field, as spec.http[0].timeout.
	Path string
	// Message says what stands there, as its author wrote it, and what is wanted.
	Message string
}

// Error is the message alone: who tells of a Fault has a place for its path.
func (f *Fault) Error() string { return f.Message }

func fault(path string, v any, want string) *Fault {
	return &Fault{path, written(v) + ": want " + want}
}

// written is a value as its author wrote it, or the kind of one that is long.
func written(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return strconv.Quote(v)
	case nil:
		return "null"
	}
	return fmt.Sprint(v)
}

const (
	aString   = "a string; quote it if it is one"
	aDuration = "a duration, as 500ms, 10s or 1h30m"
	aNumber   = "a number"
)

// whole says what is wanted of a number that is not between the bounds, or no whole
// number; empty when it fits.
func whole(text string, least int64, most uint64) string {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < least || n > 0 && uint64(n) > most {
			return want
		}
		return ""
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		if n > most {
			return want
		}
		return ""
	}
	// As JSON may have it: 1e3, 1.0.
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || f < float64(least) || f > float64(most) {
		return want
	}
	return ""
}

// bounds are those of an integer with so many bits.
func bounds(bits int, signed bool) (least int64, most uint64) {
	if !signed {
		return 0, math.MaxUint64 >> (64 - bits)
	}
	return math.MinInt64 >> (64 - bits), math.MaxInt64 >> (64 - bits)
}

func numberText(v any) (string, bool) {
	n, ok := v.(json.Number)
	return n.String(), ok
}
