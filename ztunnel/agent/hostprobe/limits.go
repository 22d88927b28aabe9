package hostprobe

import "time"

const (
	// tick is the time between two comparisons of the rules: how long probes may
	// fail after somebody flushed them.
	tick = 5 * time.Second
	// chunk is how many addresses go into one message of netlink, whose length is
	// limited to 64 KiB; an element of a set takes up to 36 bytes.
	chunk = 1000
	// kubeletUID is the user that the kubelet runs as.
	kubeletUID = 0
)
