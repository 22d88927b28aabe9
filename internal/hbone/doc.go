// Package hbone carries connections through HTTP CONNECT tunnels: the HBONE
// protocol. It owns streams, flow control, multiplexing, pooling of tunnels and
// their drain. It takes connections and dialers and knows no certificates: who
// the peer is was settled before a connection comes here.
//
// The carrier in this package is HTTP/2 (RFC 9113); internal/hbone/h3 is the
// same interface over HTTP/3 (RFC 9114) on QUIC.
//
// A client's tunnel lives from NewClient to Close, or to the end of its last stream
// after Drain; a Pool makes and ends tunnels as streams need them. A server's lives
// while Server.ServeConn runs. Each has one goroutine, which reads:
//
//	conn := tls.Client(hbone.WrapConn(tcp), cfg)
//	tunnel, err := hbone.NewClient(conn, hbone.ClientConfig{})
//	…
//	stream, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.0.0.7:8080"})
//	…
//	err = stream.Join(ctx, application, counters)
//
// How bytes pass is told in tunnel.go (reading), write.go (the write lock, and why
// the reader never waits for it), receive.go and join.go (to and from a socket),
// and bufferedconn.go (what lies below crypto/tls).
package hbone
