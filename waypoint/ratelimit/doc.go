// Package ratelimit counts the requests of a waypoint and refuses those that a
// RateLimitPolicy does not allow.
//
// A Limiter compiles policies and holds what they count. A request takes a Ticket,
// shows it to its policies with Count, and asks Decide: every limit of every rule that
// is enforced must hold, and what is refused has taken nothing of any. Local limits are
// exact: GCRA in whole numbers, in buckets that are bounded in memory (Keys says how a
// busy key is kept from beginning anew). Beyond one replica counts
//
//   - Redis, exactly, by one script over pipelined connections;
//   - a rate limit service with Envoy's API v3;
//   - by default nobody: the control plane shares each limit out among the replicas
//     (leases), which count locally what is theirs.
//
// A backend that does not answer within the policy's timeout has its requests pass or
// refused as the policy says.
//
// It does not know routes, and answers nobody: waypoint/forward does.
package ratelimit
