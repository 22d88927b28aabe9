package hbone

// WaitingWriters tells how many goroutines are about to take the tunnel's write lock.
func WaitingWriters(c *ClientConn) int { return int(c.t.waiting.Load()) }

// MaxUnsent is what the streams of one tunnel hold at most, give or take one buffer.
const MaxUnsent = maxUnsent

// Unsent tells how many octets the streams of the server's tunnels hold.
func Unsent(s *Server) (octets int64) {
	for _, t := range s.all() {
		t.mu.Lock()
		octets += t.unsent
		t.mu.Unlock()
	}
	return octets
}
