package app

import (
	"net"
	"sync"
	"time"
)

// silent are the connections whose clients have not said anything yet. A drain does not
// wait for them.
type silent struct {
	mu       sync.Mutex
	conns    map[net.Conn]bool
	draining bool
}

// sniff is the function of that name. A client that says nothing at all is waited for as
// one between two requests is, and in a drain shortly.
func (s *silent) sniff(conn net.Conn) (net.Conn, bool, error) {
	s.mu.Lock()
	patience := idleTimeout
	if s.draining {
		patience = silentTimeout
	}
	err := conn.SetReadDeadline(time.Now().Add(patience))
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	if err != nil {
		return nil, false, err
	}
	first, two, err := sniff(conn)
	if err != nil {
		return nil, false, err
	}
	s.mu.Lock() // so that the drain sets no deadline after this
	defer s.mu.Unlock()
	delete(s.conns, conn)
	return first, two, conn.SetReadDeadline(time.Time{})
}

// drain ends them if they stay silent: who has just come may be about to ask.
func (s *silent) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for conn := range s.conns {
		_ = conn.SetReadDeadline(time.Now().Add(silentTimeout))
	}
}
