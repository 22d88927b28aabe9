package measure

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat (USER_HZ, 100 on every
// architecture that Linux has kept).
const clockTick = 10 * time.Millisecond

// family returns the processes and all that descend from them.
func family(pids []int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := slices.Clone(pids)
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		parent, err := parseParent(b)
		if err != nil {
			return nil, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		children[parent] = append(children[parent], pid)
	}
	for i := 0; i < len(all); i++ {
		for _, child := range children[all[i]] {
			if !slices.Contains(all, child) {
				all = append(all, child)
			}
		}
	}
	return all, nil
}

// parseParent returns field 4.
func parseParent(b []byte) (int, error) {
	fields, err := statFields(b)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[1])
}

// statFields returns the fields from the third on (proc_pid_stat(5)).
func statFields(b []byte) ([]string, error) {
	// The second field is the command in brackets and may contain anything.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return nil, fmt.Errorf("no command in %q", b)
	}
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("too few fields in %q", b)
	}
	return fields, nil
}

// cpuTime is what the processes and their children spent in user and kernel mode since
// they started.
func cpuTime(pids []int) (time.Duration, error) {
	pids, err := family(pids)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		t, err := parseStat(b)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += t
	}
	return sum, nil
}

// parseStat adds utime and stime, fields 14 and 15 (proc_pid_stat(5)).
func parseStat(b []byte) (time.Duration, error) {
	fields, err := statFields(b)
	if err != nil {
		return 0, err
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// residentKiB is the resident memory of the processes and their children.
func residentKiB(pids []int) (float64, error) {
	pids, err := family(pids)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		kib, err := parseRollup(b)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/smaps_rollup: %w", pid, err)
		}
		sum += kib
	}
	return sum, nil
}

func parseRollup(b []byte) (float64, error) {
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "Rss:"); ok {
			fields := strings.Fields(rest)
			if len(fields) == 2 && fields[1] == "kB" {
				return strconv.ParseFloat(fields[0], 64)
			}
		}
	}
	return 0, fmt.Errorf("no Rss")
}

// descriptors counts the open files of the processes and their children.
func descriptors(pids []int) (int, error) {
	pids, err := family(pids)
	if err != nil {
		return 0, err
	}
	sum := 0
	for _, pid := range pids {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return 0, err
		}
		sum += len(entries)
	}
	return sum, nil
}
