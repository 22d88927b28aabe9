package http2

import "time"

// meter is a token bucket for events that a peer causes. One goroutine uses it.
type meter struct {
	burst, perSecond float64
	left             float64
	last             time.Time
}

func newMeter(burst, perSecond int) meter {
	return meter{burst: float64(burst), perSecond: float64(perSecond), left: float64(burst)}
}

// allow takes one token. The clock counts only when the bucket is nearly empty.
func (m *meter) allow(now time.Time) bool {
	if m.left < 1 {
		if !m.last.IsZero() {
			m.left = min(m.burst, m.left+now.Sub(m.last).Seconds()*m.perSecond)
		}
		m.last = now
		if m.left < 1 {
			return false
		}
	}
	if m.last.IsZero() {
		m.last = now
	}
	m.left--
	return true
}

// refill adds n tokens.
func (m *meter) refill(n int64) { m.left = min(m.burst, m.left+float64(n)) }
