package hbone

import "time"

// member is one tunnel of the pool.
type member struct {
	tunnel Tunnel
	opens  int  // guarded by the pool's mu
	proven bool // its peer has answered; guarded by the pool's mu
	idle   *time.Timer
	seen   int // opens when idle fired last
}

// busy tells whether a tunnel moves so much that its one reader is likely the limit.
func busy(t Tunnel) bool {
	b, ok := t.(interface{ Busy() bool })
	return ok && b.Busy()
}

// ended tells whether the tunnel is over, or will be without our doing.
func (m *member) ended() bool {
	select {
	case <-m.tunnel.Done():
		return true
	default:
		return m.tunnel.Err() != nil
	}
}

// fruitless tells whether a fresh tunnel takes no streams: its peer allows none. The
// pool's mu is held.
func (m *member) fruitless() bool {
	return !m.proven && m.tunnel.Streams() == 0 && !m.tunnel.Usable()
}

// PooledTunnel describes one tunnel of a pool.
type PooledTunnel struct {
	Key Key
	// Streams is the number of open streams.
	Streams int
	// ExpiresAt is the moment from which no new stream is opened; zero: never.
	ExpiresAt time.Time
	// Stats is nil when the carrier keeps none.
	Stats *TunnelStats
}

// Tunnels describes the tunnels that take new streams, in no order.
func (p *Pool) Tunnels() []PooledTunnel {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []PooledTunnel
	for key, e := range p.entries {
		for _, m := range e.members {
			d := PooledTunnel{Key: key, Streams: m.tunnel.Streams(), ExpiresAt: m.tunnel.ExpiresAt()}
			if s, ok := m.tunnel.(interface{ Stats() TunnelStats }); ok {
				stats := s.Stats()
				d.Stats = &stats
			}
			list = append(list, d)
		}
	}
	return list
}
