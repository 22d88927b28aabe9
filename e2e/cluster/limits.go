package cluster

import "time"

// Bounds of what the cluster waits for. Beside each stands what it takes on two
// cores when nothing else runs; the bounds are for a machine that builds meanwhile.
const (
	// apiServerWithin: 4 s.
	apiServerWithin = 90 * time.Second
	// bootWithin bounds containerd's start and the import of the first images: 2 s.
	bootWithin = 120 * time.Second
	// nodesWithin: 3 s after the API server.
	nodesWithin = 120 * time.Second
	// dnsWithin: 4 s after the nodes.
	dnsWithin = 120 * time.Second
	// nodeReadyWithin bounds a restarted node's way back.
	nodeReadyWithin = 3 * time.Minute
	// controlPlaneGrace is what a process of the control plane has to end in.
	controlPlaneGrace = 3 * time.Second
	// cgroupsWithin bounds the removal of the nodes' cgroups, which the kernel
	// refuses while it still takes processes apart.
	cgroupsWithin = 20 * time.Second
	// lockWithin bounds the wait for another command that changes the cluster.
	lockWithin = 30 * time.Second
	// pollEvery is how often states are looked at: often enough for a human.
	pollEvery = 100 * time.Millisecond
)
