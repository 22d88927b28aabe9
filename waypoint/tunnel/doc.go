// Package tunnel is a waypoint's way through the mesh: streams of HBONE tunnels as
// connections, and the dialing of endpoints, each behind mutual TLS with the
// identity that it has to prove.
//
// It owns the pool of tunnels to endpoints. Certificates and the choice of the
// endpoint come from outside.
package tunnel
