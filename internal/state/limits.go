package state

import "time"

// joinedMemory is for how long it is known that a workload joined the mesh. What
// is decided by it looks back a second or so; the rest is for who investigates.
const joinedMemory = time.Minute
