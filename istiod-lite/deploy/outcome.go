package deploy

import (
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// Outcome is what became of a Gateway's waypoint so far.
type Outcome struct {
	// Managed is set where this package makes the waypoint, as it does in a cluster
	// for Gateways that name no address of their own.
	Managed bool
	// Done is set when all was applied as it should be.
	Done bool
	// Refused is set when the Gateway asks for what cannot be, and Reason and Message
	// say what; without it they say what went wrong in making it.
	Refused bool
	Reason  string
	Message string

	uid types.UID
}

// Outcome returns what is known of the Gateway's waypoint. It is zero before
// anything was done for it.
func (c *Controller) Outcome(gw *gatewayv1.Gateway) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.outcomes[source.Name{Namespace: gw.Namespace, Name: gw.Name}]
	if o.uid != gw.UID {
		objects := c.newest.Load()
		return Outcome{Managed: objects != nil && deploys(objects, gw)}
	}
	return o
}

// tell keeps an outcome, and has others look when it is new.
func (c *Controller) tell(name source.Name, o Outcome) {
	c.mu.Lock()
	before := c.outcomes[name]
	if o == (Outcome{}) {
		delete(c.outcomes, name)
	} else {
		c.outcomes[name] = o
	}
	c.mu.Unlock()
	if before != o && c.cfg.Changed != nil {
		c.cfg.Changed()
	}
}
