// Package outbound takes the connections that one pod opens and leads them into
// the mesh. It recovers the original destination, asks nexthop, and connects the
// client to a tunnel's stream, to a plain upstream connection, or, when the
// destination pod lives in the same process, to that pod's inbound decision.
//
// The upstream is dialled when the client is accepted, not when it first
// writes, so protocols in which the server speaks first see no delay; no byte
// is ever looked at. Tunnels are dialled inside the pod's namespace, so that the
// receiver sees the pod's own address.
//
// It does not own listeners, the mesh's state or certificates. What it cannot
// connect it resets, and says why in the access log.
package outbound
