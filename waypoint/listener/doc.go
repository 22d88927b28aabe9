// Package listener takes the tunnels that come to a waypoint on port 15008 and hands
// out what clients ask for in them: connections, with the identity that each client
// proved. It answers a CONNECT only when the other side of it is known to take it, so
// that a node proxy can tell a refusal from a connection that broke.
//
// It does not know the mesh: who is allowed where is the Handler's.
package listener
