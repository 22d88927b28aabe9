// Package topology builds the network that is measured: a client pod on node A
// and a server pod on node B, each a network namespace, joined by veth pairs,
// a namespace for the control plane beside node A, and one for a waypoint beside node B.
//
//	client ── node A ── node B ── server
//	             └── control └── waypoint
//
// It needs the right to make namespaces, and a mount namespace of its own, so
// that nothing is left when the process is killed.
package topology
