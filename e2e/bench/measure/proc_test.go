package measure

import (
	"strings"
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

func TestCountsOfH2load(t *testing.T) {
	const text = `requests: 2000 total, 2064 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.23MB (2342340) total, 230.00KB (235520) headers (space savings 0.00%), 1.95MB (2048000) data
`
	if n, err := parseH2load(text); err != nil || n != 2000 {
		t.Errorf("parseH2load = %v, %v", n, err)
	}
	for _, bad := range []string{
		"", strings.Replace(text, "0 failed", "1 failed", 1), strings.Replace(text, "0 5xx", "3 5xx", 1),
		strings.Replace(text, "2048000", "2047999", 1),
	} {
		if _, err := parseH2load(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestParentFromStat(t *testing.T) {
	const stat = "4711 (odd ) name) S 17 4711 4711 0 -1 4194560 1000 0 0 0 250 125 7 8 20 0 9 0 12345\n"
	if got, err := parseParent([]byte(stat)); err != nil || got != 17 {
		t.Errorf("parseParent = %v, %v", got, err)
	}
}
