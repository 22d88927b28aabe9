// Package extauthz asks external authorization services about requests, over gRPC
// (Envoy's envoy.service.auth.v3.Authorization) or HTTP.
//
// It owns the question, the answer and what an answer changes in a request and its
// response. Who is asked about what decides waypoint/forward; where the service's
// endpoints are, and the connections to them, are waypoint/upstream's. gRPC is spoken
// on the waypoint's own HTTP/2 connections: one unary call is a head, a message and
// trailers.
//
// A question takes a bounded time. What cannot be asked, and an answer that is none,
// is an error: the provider's setting then lets the request pass or refuses it.
//
// Where Envoy would let a client write what only the authorizer should write, this
// package does not: the fields that an HTTP authorizer may set are taken out of the
// client's request when it consents, but for authorization and cookie, which are the
// client's own.
//
//	answer := extauthz.Ask(ctx, auth, backend, &extauthz.Question{Request: r, ...})
//	if answer.Allowed() {
//		answer.Apply(r)
//	}
package extauthz
