package tunnel

import "time"

const (
	// hbonePort is where node proxies take tunnels, at every pod's own address.
	hbonePort = 15008
	// defaultConnectTimeout applies where Config says nothing: how long a client
	// waits for an endpoint that does not answer.
	defaultConnectTimeout = 10 * time.Second
)
