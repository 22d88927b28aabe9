// Package mtls is the only place where TLS is configured: the mutual TLS between
// proxies, the server-authenticated TLS of the control plane's port, and that which
// applications speak themselves (ApplicationClient), where 1.2 is taken. TLS 1.3
// only between proxies, no session tickets (a resumed session would skip the check of a
// certificate that has meanwhile expired), key exchange as Go prefers it, with
// X25519MLKEM768 first.
//
// Certificates and bundles come from go-spiffe's Source interfaces and are read
// at every handshake, so a configuration stays good while certificates rotate:
//
//	server := tls.Server(conn, mtls.Server(lease, lease))
//	client := tls.Client(conn, mtls.Client(lease, lease, expected))
//	…
//	peer, err := mtls.Peer(client.ConnectionState())
//
// A peer is checked in VerifyConnection, which runs on every connection: its
// leaf is an X509-SVID (exactly one URI name, no authority, digitalSignature),
// chains to the bundle of its trust domain, and is for the right identity: for
// a server any of its own trust domain, for a client one of those expected.
package mtls
