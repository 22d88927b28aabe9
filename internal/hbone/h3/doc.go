// Package h3 carries HBONE over HTTP/3: CONNECT (RFC 9114 section 4.4) on QUIC
// streams of quic-go. It is the second carrier behind the interface of
// internal/hbone; what a tunnel and a stream promise is written there.
//
// It owns the HTTP/3 framing, the control streams and the drain of one QUIC
// connection, and the UDP socket that it is given: one socket per dialled
// tunnel, one per server. Congestion, loss, flow control and the handshake are
// quic-go's. It knows no certificates: the caller brings a tls.Config, and a
// hook sees the verified TLS state before the first request.
//
// The http3 package of quic-go is not used. It adds header fields of its own
// to a request (user-agent, accept-encoding), holds state per request for
// bodies, trailers and datagrams that a tunnel does not have, and closes a
// drained connection without leaving time for the last bytes to be
// acknowledged. CONNECT needs two frame types, and these fit in one page.
//
// A client:
//
//	tunnel, err := h3.Dial(ctx, udp, peer, tlsConfig, h3.ClientConfig{})
//	stream, _, err := tunnel.Open(ctx, hbone.Request{Authority: "10.0.0.7:80"})
//	err = stream.Join(ctx, sock, &counters)
//
// A server:
//
//	server := h3.NewServer(h3.ServerConfig{Handler: handle, Attach: identify})
//	go server.Serve(ctx, udp, tlsConfig)
//	...
//	err := server.Drain(ctx)
package h3
