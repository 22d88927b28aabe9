// Package http2 speaks HTTP/2 (RFC 9113) on connections that it is given, as a server
// and as a client, in the values of waypoint/message. TLS and HTTP/1.1's upgrade are
// not its business: both ends know beforehand what they speak.
//
// It is a boundary of security: what the RFC calls malformed is refused, in requests
// and in responses alike, and a content that breaks off never passes for a whole one.
// An extended CONNECT (RFC 8441) is shown as the upgrade that it stands for, a GET
// with a Protocol, so that routes and policies know one form of it only.
//
// A connection has one goroutine, which reads it; a server has one more for each
// request that its handler works on. Nobody but that goroutine and, briefly, one that
// writes what a socket does not take at once, ever waits for the peer's socket:
// whoever sends puts frames into one buffer, where those of many streams gather, and
// waits only for room in it and for the peer's flow control.
//
//	server := &http2.Server{Handler: handle}
//	err := server.Serve(ctx, conn) // until the connection ends
//
//	client, err := http2.NewClient(conn, http2.ClientConfig{})
//	x, err := client.Open(ctx, request, true)
//	response, err := x.Response(ctx)
//	…
//	err = x.Close()
//
// How it is cut: conn.go has the connection's life; input.go, reader.go, data.go,
// headers.go and dispatch.go what comes in; output.go what goes out, and who writes
// it; stream.go and receive.go the two halves of a stream; head.go what makes a head a
// message; server.go with exchange.go, and client.go with clientexchange.go, the two
// roles.
package http2
