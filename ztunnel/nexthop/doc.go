// Package nexthop decides where an outbound connection of a pod goes: directly,
// through a tunnel, to a waypoint, past the mesh, or nowhere.
//
// The decision is pure: it reads one state.Snapshot and does no I/O, so that
// meshctl explains with the very code that the proxy runs. When in doubt it
// denies and says why. Refused is what would have to go in plaintext although
// the mesh knows better; passed on as it is goes only what the mesh does not know.
//
//	d := nexthop.Decide(snap, nexthop.Input{Source: w, Dest: originalDst, Pick: rand.IntN})
//	switch d.Kind {
//	case nexthop.Deny: // d.Reason
//	case nexthop.HBONE, nexthop.Waypoint: // CONNECT d.Authority at d.Target, peer one of d.Expected
//	case nexthop.Direct, nexthop.Passthrough: // dial d.Target
//	}
package nexthop
