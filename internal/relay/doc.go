// Package relay carries bytes between two TCP sockets until both directions
// have ended, and counts them. It owns the copying, half-closes and resets of
// plain connections; tunnels bring their own copying (internal/hbone) and share
// only the Counters.
//
// The bytes never enter user space: they are spliced (splice(2)) through a pipe
// that is borrowed when a socket becomes readable and given back as soon as
// it is empty, so an idle connection holds two goroutines and nothing else.
// io.Copy splices as well, but keeps its pipe (two descriptors) while it waits,
// reports its count only when the whole copy is over, and says nothing of a
// reset that comes after a half-close.
package relay
