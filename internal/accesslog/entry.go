package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/internal/workload"
)

// Direction is seen from the pod.
type Direction uint8

// The directions.
const (
	Inbound Direction = iota
	Outbound
)

// String returns the direction as the log spells it.
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// Entry is one connection. Zero fields are left out of the line, except bytes
// and duration.
type Entry struct {
	Direction Direction
	// Source is the client's address.
	Source         netip.AddrPort
	SourceWorkload *workload.Workload
	// SourceIdentity and DestinationIdentity are set only when they were proved
	// by mutual TLS.
	SourceIdentity spiffeid.ID
	// Destination is what was dialled on the wire: the tunnel's address for a
	// tunnelled connection.
	Destination netip.AddrPort
	// HBONEAddr is the tunnel request's authority.
	HBONEAddr           string
	DestinationService  *workload.Service
	DestinationWorkload *workload.Workload
	DestinationIdentity spiffeid.ID
	// FromClient counts bytes from the client to the server, FromServer back,
	// whatever the direction. The line tells them as seen from the pod.
	FromClient, FromServer uint64
	Duration               time.Duration
	// Err is why the connection failed or was denied; nil for a good end.
	Err error
	// Policy is the policy that allowed or denied.
	Policy string
	// Carrier is what the tunnel ran on, h2 or h3.
	Carrier string
	// Retried is why a first endpoint was given up for this one, if one was.
	Retried error
}

// parts says how much of an entry a line tells.
type parts uint8

const (
	addressesOnly parts = iota
	withPeers
	withTotals
)

// fields writes the entry's fields in Istio's order, then ours.
func (e *Entry) fields(f *line, p parts) {
	f.addr("src.addr", e.Source)
	if p >= withPeers {
		if w := e.SourceWorkload; w != nil {
			f.text("src.workload", w.Name)
			f.text("src.namespace", w.Namespace)
		}
		f.identity("src.identity", e.SourceIdentity)
		if w := e.SourceWorkload; w != nil {
			f.text("src.cluster", w.ClusterID)
		}
	}
	f.addr("dst.addr", e.Destination)
	if p >= withPeers {
		f.authority("dst.hbone_addr", e.HBONEAddr)
		if s := e.DestinationService; s != nil {
			f.text("dst.service", s.Hostname)
		}
		if w := e.DestinationWorkload; w != nil {
			f.text("dst.workload", w.Name)
			f.text("dst.namespace", w.Namespace)
		}
		f.identity("dst.identity", e.DestinationIdentity)
		if w := e.DestinationWorkload; w != nil {
			f.text("dst.cluster", w.ClusterID)
		}
	}
	f.text("direction", e.Direction.String())
	if p >= withTotals {
		sent, received := e.FromClient, e.FromServer
		if e.Direction == Inbound {
			sent, received = received, sent
		}
		f.number("bytes_sent", sent)
		f.number("bytes_recv", received)
		f.millis("duration", e.Duration)
	}
	if e.Err != nil {
		f.text("error", clip(e.Err.Error()))
	}
	if p >= withPeers {
		f.text("policy", clip(e.Policy))
		f.text("carrier", e.Carrier)
		if e.Retried != nil {
			f.text("retried", clip(e.Retried.Error()))
		}
	}
}

func clip(s string) string {
	if len(s) <= maxErrorBytes {
		return s
	}
	return s[:maxErrorBytes] + "…"
}

// line is one line being written, as text or as JSON.
type line struct {
	json bool
	buf  []byte
	sep  byte
}

// begin writes what stands before the fields.
func (l *line) begin(now time.Time, level, message string) {
	if l.json {
		l.buf = append(l.buf, `{"level":"`...)
		l.buf = append(l.buf, level...)
		l.buf = append(l.buf, `","time":"`...)
		l.buf = now.UTC().AppendFormat(l.buf, time.RFC3339Nano)
		l.buf = append(l.buf, `","scope":"access","message":"`...)
		l.buf = append(l.buf, message...)
		l.buf = append(l.buf, '"')
		return
	}
	l.buf = now.UTC().AppendFormat(l.buf, time.RFC3339Nano)
	l.buf = append(l.buf, '\t')
	l.buf = append(l.buf, level...)
	l.buf = append(l.buf, "\taccess\t"...)
	l.buf = append(l.buf, message...)
	l.sep = '\t'
}

func (l *line) end() {
	if l.json {
		l.buf = append(l.buf, '}')
	}
	l.buf = append(l.buf, '\n')
}

func (l *line) key(key string) {
	if l.json {
		l.buf = append(l.buf, ',', '"')
		l.buf = append(l.buf, key...)
		l.buf = append(l.buf, '"', ':')
		return
	}
	l.buf = append(l.buf, l.sep)
	l.sep = ' '
	l.buf = append(l.buf, key...)
	l.buf = append(l.buf, '=')
}

// text writes a string in quotes, whatever is in it: a name from the wire must
// not forge a field or a line.
func (l *line) text(key, value string) {
	if value == "" {
		return
	}
	l.key(key)
	if l.json {
		l.buf = appendJSON(l.buf, value)
	} else {
		l.buf = strconv.AppendQuote(l.buf, value)
	}
}

func (l *line) identity(key string, id spiffeid.ID) {
	if !id.IsZero() {
		l.text(key, id.String())
	}
}

func (l *line) addr(key string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	l.key(key)
	if l.json {
		l.buf = append(l.buf, '"')
		l.buf = a.AppendTo(l.buf)
		l.buf = append(l.buf, '"')
		return
	}
	l.buf = a.AppendTo(l.buf)
}

// authority writes an address bare and anything else in quotes.
func (l *line) authority(key, value string) {
	if a, err := netip.ParseAddrPort(value); err == nil {
		l.addr(key, a)
		return
	}
	l.text(key, value)
}

func (l *line) number(key string, n uint64) {
	l.key(key)
	l.buf = strconv.AppendUint(l.buf, n, 10)
}

func (l *line) millis(key string, d time.Duration) {
	l.key(key)
	l.buf = append(l.buf, '"')
	l.buf = strconv.AppendInt(l.buf, d.Milliseconds(), 10)
	l.buf = append(l.buf, `ms"`...)
}

const hexDigits = "0123456789abcdef"

// appendJSON writes a JSON string (RFC 8259 section 7).
func appendJSON(buf []byte, s string) []byte {
	buf = append(buf, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			buf = append(buf, '\\', c)
		case c < 0x20 || c == 0x7f:
			buf = append(buf, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			buf = append(buf, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			buf = utf8.AppendRune(buf, r) // an invalid byte becomes U+FFFD
			i += size
			continue
		}
		i++
	}
	return append(buf, '"')
}
