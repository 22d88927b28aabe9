// Package inbound brings connections from the mesh to the application of one
// pod. It owns both doors: tunnels on 15008 (HTTP/2 on TLS over TCP, HTTP/3 on
// QUIC over UDP) and plaintext that the redirection sent to 15006, and the
// third, which leads from a pod of the same process (Deliver).
//
// All doors lead through one decision. It checks that the request is for this
// pod, asks internal/authz, and yields a Permit; connecting to the application
// takes that Permit as a value, so no path can reach it without, and no byte
// reaches the application before. The application sees the client's own
// address as its peer. A tunnel's request is answered with 200 only when the
// application has taken the connection.
//
// It does not own listeners, certificates or the mesh's state; it is handed
// accepted connections and looks at the rest through Config.
package inbound
