package ratelimit

import (
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Fields adds to a response what draft-ietf-httpapi-ratelimit-headers says of the rule
// that decided: what is left and when the limit is full again, and the limit. A refusal
// also tells when to come again (RFC 9110, 10.2.3).
func (v *Verdict) Fields(h *message.Header) {
	if v.Rule == "" || v.Limit == 0 {
		return
	}
	var room [96]byte
	b := strconv.AppendQuote(room[:0], v.Rule)
	name := len(b)
	b = append(b, ";r="...)
	b = strconv.AppendUint(b, v.Remaining, 10)
	b = append(b, ";t="...)
	b = strconv.AppendInt(b, seconds(v.Reset), 10)
	h.Set("ratelimit", string(b))
	b = append(b[:name], ";q="...)
	b = strconv.AppendUint(b, v.Limit, 10)
	b = append(b, ";w="...)
	b = strconv.AppendInt(b, max(seconds(v.Window), 1), 10)
	h.Set("ratelimit-policy", string(b))
	if !v.Allowed {
		h.Set("retry-after", strconv.FormatInt(max(seconds(v.RetryAfter), 1), 10))
	}
}

// seconds rounds up: who comes again then is not refused for having come too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
