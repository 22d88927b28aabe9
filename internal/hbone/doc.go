// Package hbone carries connections through HTTP CONNECT tunnels: the HBONE
// protocol. It owns streams, flow control, multiplexing, pooling of tunnels and
// their drain. It takes connections and dialers and knows no certificates: who
// the peer is was settled before a connection comes here.
//
// The carrier in this package is HTTP/2 (RFC 9113); internal/hbone/h3 is the
// same interface over HTTP/3 (RFC 9114) on QUIC.
package hbone
