package topology

import (
	"fmt"
	"os"
	"strings"
)

// Machine describes what a benchmark runs on, for figures mean little without.
func Machine() string {
	model := "unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo")
	cores := 0
	for line := range strings.Lines(string(info)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			cores++
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d cores, Linux %s, MTU %d", model, cores, strings.TrimSpace(string(kernel)), MTU)
}
