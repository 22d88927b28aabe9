package message

import (
	"sync/atomic"
	"time"
)

// stamp is the text of one second.
type stamp struct {
	second int64
	text   string
}

var lastStamp atomic.Pointer[stamp]

// Date returns now as a Date field has it (RFC 9110, 5.6.7). The text is made once a
// second. It is safe for concurrent use.
func Date(now time.Time) string {
	second := now.Unix()
	if s := lastStamp.Load(); s != nil && s.second == second {
		return s.text
	}
	s := &stamp{second, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
	lastStamp.Store(s)
	return s.text
}
