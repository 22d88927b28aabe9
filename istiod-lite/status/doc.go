// Package status tells users, in the status of their objects, what became of
// them: whether a service is bound to the waypoint that it asks for, whether
// node proxies enforce a policy as it is written, whether a route has an effect.
// It owns the decisions (Decider, functions of the objects alone) and the
// writing (Writer), which only the leading replica does.
//
//	w, err := status.New(status.Config{Client: dynamicClient, Decider: status.Decider{…}})
//	w.Observe(objects) // each new state
//	w.Run(ctx)         // while this replica leads
//
// A condition is written when it differs from what stands in the object, by
// server-side apply where the API merges conditions by type, and by a merge
// patch of the whole list, tied to the version that was read, where it does not.
// Conditions of others stay as they are. Who keeps changing ours is answered
// more and more rarely. That a waypoint has taken traffic is written for good:
// translation reads it.
package status
