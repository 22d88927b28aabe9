package enrol

import "time"

const (
	// Timeout is how long Enrol waits for the proxy's ack when its context does
	// not end before. Kubelet gives a CNI plugin minutes; a proxy that has the
	// mesh's state answers in milliseconds, one that just starts in seconds.
	Timeout = 30 * time.Second
	// deleteTimeout bounds the wait for the proxy's ack when a pod leaves. A proxy
	// that does not answer is cut off after 5 s and told by its next list.
	deleteTimeout = 6 * time.Second
	// tick is the time between two looks at a pod's rules and old connections: how
	// long it may last that somebody flushed the rules.
	tick = 5 * time.Second
	// fullInterval is the time between two full comparisons of a pod's rules and
	// routes. Between them only the number of the rules' last change is asked for,
	// at a tenth of the cost (BenchmarkGeneration, BenchmarkVerify in
	// ztunnel/redirect). What it does not show, policy routing, breaks deliveries
	// when it is missing and lets nothing past.
	fullInterval = time.Minute
	// settle is for how long after the enrolment connections may still appear that
	// are older: handshakes that were under way.
	settle = 10 * time.Second
	// parting is for how long the proxy still takes connections of a pod whose
	// capture has ended: the handshakes that were under way, so a few round trips.
	parting = 500 * time.Millisecond
	// drainDeadline bounds how long the connections of a pod that left are still
	// translated. It is the proxy's own deadline that usually ends them.
	drainDeadline = 5 * time.Minute
	// StrictGrace is how long older connections may go on in a strict pod.
	StrictGrace = 30 * time.Second
	// maxPods bounds the list; kubelet's own limit is 110 by default, 500 in the
	// largest clusters.
	maxPods = 4096
	// maxListed bounds the older connections of one pod that Pods lists; all are
	// counted.
	maxListed = 100
	// maxStateFile is the size in bytes of the largest file of the state directory
	// that is read.
	maxStateFile = 64 << 10
	// maxPath is PATH_MAX of Linux.
	maxPath = 4096
)
