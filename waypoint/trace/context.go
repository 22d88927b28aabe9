package trace

import (
	"encoding/hex"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// form is the set of fields that a context came in, which it goes on in.
type form uint8

const (
	w3c form = 1 << iota
	b3Single
	b3Multi
)

// decision is what a client says of sampling.
type decision uint8

const (
	undecided decision = iota
	no
	yes
)

// parent is the context of a client.
type parent struct {
	trace    ID
	span     SpanID
	decision decision
	state    string
	form     form
}

// The fields of the specifications (https://www.w3.org/TR/trace-context/,
// https://github.com/openzipkin/b3-propagation), in lower case.
const (
	fieldParent  = "traceparent"
	fieldState   = "tracestate"
	fieldB3      = "b3"
	fieldTrace   = "x-b3-traceid"
	fieldSpan    = "x-b3-spanid"
	fieldUpper   = "x-b3-parentspanid"
	fieldSampled = "x-b3-sampled"
	fieldFlags   = "x-b3-flags"
)

// read takes the context from a header: W3C's goes before B3's, whose one field goes
// before its several. It reports whether there is a trace; a decision may come without.
func (p *parent) read(h message.Header) bool {
	var traceparent, state, single, id, span, sampled, flags string
	parents, any := 0, false
	for i := range h {
		name := h[i].Name
		switch len(name) {
		case 2, 10, 11, 12:
		default:
			continue
		}
		value := h[i].Value
		switch name {
		case fieldParent:
			traceparent = value
			parents++
		case fieldState:
			if state != "" {
				state += ","
			}
			state += value
		case fieldB3:
			single = value
		case fieldTrace:
			id = value
		case fieldSpan:
			span = value
		case fieldSampled:
			sampled = value
		case fieldFlags:
			flags = value
		default:
			continue
		}
		any = true
	}
	if !any {
		return false
	}
	// Two parents are none (Trace Context, 3.2).
	if parents == 1 && p.parseW3C(traceparent) {
		if len(state) <= maxStateBytes {
			p.state = state
		}
		p.form = w3c
		// Those that came along are kept in step.
		if single != "" {
			p.form |= b3Single
		}
		if id != "" {
			p.form |= b3Multi
		}
		return true
	}
	if p.parseSingle(single) {
		p.form = b3Single | w3c
		return true
	}
	if p.parseMulti(id, span, sampled, flags) {
		p.form = b3Multi | w3c
		return true
	}
	return false
}

// parseW3C reads version-trace-span-flags. A later version may have more behind it.
func (p *parent) parseW3C(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !unhex(version[:], s[:2]) || version[0] == 0xff || !unhex(flags[:], s[53:55]) {
		return false
	}
	if len(s) > 55 && (version[0] == 0 || s[55] != '-') {
		return false
	}
	var trace ID
	var span SpanID
	if !unhex(trace[:], s[3:35]) || !unhex(span[:], s[36:52]) || trace == (ID{}) || span == (SpanID{}) {
		return false
	}
	p.trace, p.span, p.decision = trace, span, no
	if flags[0]&1 != 0 {
		p.decision = yes
	}
	return true
}

// parseSingle reads trace-span[-decision[-parent]], or a decision alone, which is no
// trace.
func (p *parent) parseSingle(s string) bool {
	if s == "" {
		return false
	}
	trace, rest, more := strings.Cut(s, "-")
	if !more {
		p.decision = decide(trace)
		return false
	}
	span, rest, _ := strings.Cut(rest, "-")
	word, _, _ := strings.Cut(rest, "-")
	return p.parseIDs(trace, span, word)
}

func (p *parent) parseMulti(trace, span, sampled, flags string) bool {
	if flags == "1" {
		sampled = "d"
	}
	if trace == "" {
		p.decision = decide(sampled)
		return false
	}
	return p.parseIDs(trace, span, sampled)
}

func (p *parent) parseIDs(trace, span, word string) bool {
	var t ID
	var s SpanID
	switch len(trace) {
	case 16: // of 64 bits, which are the lower ones
		if !unhex(t[8:], trace) {
			return false
		}
	case 32:
		if !unhex(t[:], trace) {
			return false
		}
	default:
		return false
	}
	if !unhex(s[:], span) || t == (ID{}) || s == (SpanID{}) {
		return false
	}
	p.trace, p.span, p.decision = t, s, decide(word)
	return true
}

// decide reads B3's word for the decision; d is debug, which samples.
func decide(word string) decision {
	switch word {
	case "1", "d", "true":
		return yes
	case "0", "false":
		return no
	}
	return undecided
}

// unhex reads exactly as many digits as dst has room for, in lower case.
func unhex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// write puts the context of a span that is sampled into a header.
func (f form) write(h *message.Header, trace ID, span, upper SpanID) {
	t, s := hex.EncodeToString(trace[:]), hex.EncodeToString(span[:])
	h.Set(fieldParent, "00-"+t+"-"+s+"-01")
	if f&w3c == 0 {
		h.Del(fieldState)
	}
	if f&b3Single != 0 {
		h.Set(fieldB3, t+"-"+s+"-1-"+hex.EncodeToString(upper[:]))
	}
	if f&b3Multi != 0 {
		h.Set(fieldTrace, t)
		h.Set(fieldSpan, s)
		h.Set(fieldUpper, hex.EncodeToString(upper[:]))
		h.Set(fieldSampled, "1")
		h.Del(fieldFlags)
	}
}
