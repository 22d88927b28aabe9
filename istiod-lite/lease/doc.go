// Package lease shares rate limits out among the replicas of waypoints that count them.
//
// Each rule of a RateLimitPolicy is a whole of 65,536 parts, and so is each key of it
// that is near its limit somewhere. An Allocator, which is pure and is told the time,
// gives each replica a share: the same to all, and of keys with demand most to those
// who have most of it. What is given to one was taken from another before: a share grows
// only by what others have acknowledged to be without, so that the shares in use add up
// to no more than the limit, however slow the network is.
//
// A replica whose stream breaks goes on with what it has, so its shares stay its own for
// a while (retention) and are given to others then. A Server that starts anew learns from
// its clients what they hold, and in the first while only gives what nobody can be
// missing.
//
// Server speaks api/lease with them.
package lease
