// Package http1 speaks HTTP/1.1 (RFC 9112) on connections that it is given, as a
// server and as a client, in the values of waypoint/message.
//
// It is a boundary of security: a message that two parsers could read differently is
// refused, not mended, in requests and in responses alike. What it sends is framed by
// itself alone: no field of a Header can frame a message, begin another line, or name
// another host.
//
// A server works on one goroutine per connection, which reads a request, runs the
// handler and writes the response; a client works on its callers'. Only where one waits
// for somebody else for longer than a moment (see patience), a second one waits for the
// peer, to notice that it has gone. A connection without a request holds a buffer of
// 1 KiB, of 4 KiB where heads are large. The head of a response and a small content
// leave in one write, and so do those of a request.
//
// Of its connections it wants Read, Write, and a Close that ends both, no deadlines:
// those of a tunnel's stream would end it for good. A method CloseWrite is used where
// there is one, and SetLinger(0) before a Close that the peer must not take for the
// end of a response.
//
// HTTP/1.0 is served without persistent connections. Not supported are pipelining as
// a client, transfer codings other than chunked, and the upgrade to HTTP/2.
//
//	server := &http1.Server{Handler: handle}
//	err := server.Serve(ctx, conn) // until the connection ends
package http1
