// Package relay carries bytes between two TCP sockets until both directions
// have ended, and counts them. It owns the copying, half-closes and resets of
// plain connections; tunnels bring their own copying (internal/hbone) and share
// only the Counters.
package relay
