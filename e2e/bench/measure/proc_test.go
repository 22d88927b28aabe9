package measure

import (
	"testing"
	"time"
)

// The parsers of /proc are internal: what they read is the kernel's.

func TestProcessorTimeFromStat(t *testing.T) {
	const stat = "4711 (odd ) name) S 1 4711 4711 0 -1 4194560 1000 0 0 0 250 125 7 8 20 0 9 0 12345 1000000 500 18446744073709551615\n"
	got, err := parseStat([]byte(stat))
	if err != nil || got != 3750*time.Millisecond {
		t.Errorf("parseStat = %v, %v", got, err)
	}
	for _, bad := range []string{"", "4711 (x", "4711 (x) S 1 2 3"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestResidentMemoryFromRollup(t *testing.T) {
	const rollup = "00400000-7ffd [rollup]\nRss:               12340 kB\nPss:  1 kB\n"
	got, err := parseRollup([]byte(rollup))
	if err != nil || got != 12340 {
		t.Errorf("parseRollup = %v, %v", got, err)
	}
	if _, err := parseRollup([]byte("Pss: 1 kB\n")); err == nil {
		t.Error("a file without Rss passed")
	}
}
