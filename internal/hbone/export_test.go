package hbone

// WaitingWriters tells how many goroutines are about to take the tunnel's write lock.
func WaitingWriters(c *ClientConn) int { return int(c.t.waiting.Load()) }
