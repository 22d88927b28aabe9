// Package memory decides how far a waypoint's heap may grow before it is collected.
//
// A waypoint keeps little alive, some megabytes, and makes some kilobytes of garbage for
// each request. Go's default collects when the heap has doubled: at ten thousand requests
// a second that is a dozen times a second, for a fifth of the processor. Below a floor
// there is no reason to.
//
//	stop := memory.Floor(memory.DefaultFloor)
//	defer stop()
package memory
