package supervisor

import "time"

const (
	// defaultGrace is how long a program may take to end. Kubernetes gives 30 s,
	// which is a long wait at a terminal for a `sleep` that, being PID 1, never
	// hears SIGTERM; spec.terminationGracePeriodSeconds says otherwise.
	defaultGrace = 2 * time.Second
	// maxGrace bounds what a pod may ask for, so that `down` ends.
	maxGrace = 30 * time.Second
	// componentGrace is for ztunnel, which drains, and the others.
	componentGrace = 5 * time.Second

	// restartMin and restartMax space out restarts of what keeps ending;
	// steadyAfter is how long it must have run to start again from restartMin.
	restartMin  = 250 * time.Millisecond
	restartMax  = 10 * time.Second
	steadyAfter = 10 * time.Second

	// readinessPeriod is how often components are asked whether they are ready,
	// while they are not; steadyPeriod afterwards.
	readinessPeriod = 200 * time.Millisecond
	steadyPeriod    = 2 * time.Second
	// askTimeout bounds one question to a component.
	askTimeout = 2 * time.Second
	// refusalPatience is how long objects may be refused before `up` believes it:
	// a file that was read between two writes is judged again at once.
	refusalPatience = 2 * time.Second
	// enrolTimeout bounds one request to an agent, which itself waits for the
	// ztunnel's acknowledgement (ZDS allows 5 s for it).
	enrolTimeout = 15 * time.Second
	// leaveSettle is how long a running pod that leaves the mesh is still captured
	// after the control plane was told: until all nodes have heard, as in a cluster.
	leaveSettle = 2 * time.Second
	// enrolMin and enrolMax space out attempts to enrol or release a pod.
	enrolMin = 200 * time.Millisecond
	enrolMax = 3 * time.Second

	// probePeriod is how often a readiness probe runs when it does not say;
	// Kubernetes' 10 s would make every start slow.
	probePeriod = 250 * time.Millisecond

	// steadyWithoutProbe is how long a command must go on until `up` believes that
	// it works, when no probe says so: most mistakes end one at once.
	steadyWithoutProbe = 300 * time.Millisecond

	// tokenTTL and tokenRenew: the nodes' tokens live an hour, as a cluster's
	// projected tokens do, and are renewed at a third of it.
	tokenTTL   = time.Hour
	tokenRenew = 20 * time.Minute

	// maxLogBytes is where a log file is cut back to nothing, looked at every
	// logCheck: a mesh that is forgotten over the holidays must not fill a disk.
	maxLogBytes = 64 << 20
	logCheck    = 30 * time.Second

	// maxDocumentsBytes bounds one request to apply.
	maxDocumentsBytes = 256 << 20
)
