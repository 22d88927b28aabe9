package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// clockTicks is USER_HZ, the unit of /proc/PID/stat: 100 on every Linux that Go
// runs on.
const clockTicks = 100

// usage reads what a process has used: CPU seconds and resident bytes. Both are
// 0 when it is gone.
func usage(pid int) (cpuSeconds float64, residentBytes int64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name, field 2, is in brackets and may hold anything (proc(5)).
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 22 {
		return 0, 0
	}
	ticks := func(i int) float64 { v, _ := strconv.ParseFloat(fields[i], 64); return v }
	pages, _ := strconv.ParseInt(fields[21], 10, 64) // field 24, rss
	return (ticks(11) + ticks(12)) / clockTicks, pages * int64(os.Getpagesize())
}
