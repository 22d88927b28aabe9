package deploy

import "time"

const (
	// workers bounds the Gateways that are worked on at one time.
	workers = 4
	// writeTimeout bounds the requests for one Gateway.
	writeTimeout = 20 * time.Second
	// retryFirst and retryMost are the pauses before what failed is tried again.
	retryFirst = 200 * time.Millisecond
	retryMost  = time.Minute
	// parametersInterval is how often ConfigMaps with parameters are read again. They
	// are read by name, since a watch would need the right to read all of a cluster.
	parametersInterval = 10 * time.Second
	// maxParameterBytes bounds one overlay of a ConfigMap, which may hold 1 MiB in all.
	maxParameterBytes = 256 << 10
	// drainSeconds is how long requests may go on when a pod ends, unless the template
	// is overlaid, and graceSeconds is what the pod gets for it and for its start and end.
	drainSeconds = 20
	graceSeconds = drainSeconds + 15
)
