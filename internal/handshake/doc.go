// Package handshake makes TLS connections of TCP ones for the tunnels of a proxy:
// a Gate takes the accepted side, under limits that neither one client nor all
// together can exhaust, and Client does the dialling one. Both tell who the peer is
// and when the first certificate of the connection expires.
//
// It owns neither sockets nor certificates; TLS itself is configured in
// internal/mtls, and what runs on the connection is internal/hbone's.
package handshake
