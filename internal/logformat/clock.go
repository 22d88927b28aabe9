package logformat

import (
	"fmt"
	"strconv"
	"time"
)

// clock is a layout of times in the manner of strftime. The zero value is Envoy's own:
// 2006-01-02T15:04:05.000Z.
type clock []tick

// tick is a text, a layout of Go's, or one of what Go has no layout for.
type tick struct {
	text, layout string
	special      byte // s: seconds since 1970; f: fraction of digits
	digits       int
}

var layouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'z': "-0700", 'Z': "MST", 'y': "06", 'b': "Jan", 'h': "Jan", 'B': "January",
	'a': "Mon", 'A': "Monday", 'p': "PM", 'I': "03", 'j': "002", 'e': "_2", 'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'R': "15:04",
}

func parseClock(s string) (clock, error) {
	var c clock
	text := func(t string) { c = append(c, tick{text: t}) }
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			j := i
			for j < len(s) && s[j] != '%' {
				j++
			}
			text(s[i:j])
			i = j - 1
			continue
		}
		if i++; i == len(s) {
			return nil, fmt.Errorf("layout %q ends in a percent sign", s)
		}
		digits := 9
		if s[i] >= '1' && s[i] <= '9' {
			digits = int(s[i] - '0')
			if i++; i == len(s) || s[i] != 'f' {
				return nil, fmt.Errorf("layout %q: %%%d is followed by f only", s, digits)
			}
		}
		switch c0 := s[i]; c0 {
		case 'f', 's':
			c = append(c, tick{special: c0, digits: digits})
		case '%':
			text("%")
		default:
			l, ok := layouts[c0]
			if !ok {
				return nil, fmt.Errorf("layout %q: %%%c is unknown", s, c0)
			}
			c = append(c, tick{layout: l})
		}
	}
	if len(c) > maxParts {
		return nil, fmt.Errorf("layout has %d parts, more than %d", len(c), maxParts)
	}
	return c, nil
}

func (c clock) append(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if len(c) == 0 {
		return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	}
	for i := range c {
		switch k := &c[i]; {
		case k.special == 's':
			dst = strconv.AppendInt(dst, t.Unix(), 10)
		case k.special == 'f':
			n := t.Nanosecond()
			for range 9 - k.digits {
				n /= 10
			}
			text := strconv.Itoa(n)
			for range k.digits - len(text) {
				dst = append(dst, '0')
			}
			dst = append(dst, text...)
		case k.layout != "":
			dst = t.AppendFormat(dst, k.layout)
		default:
			dst = append(dst, k.text...)
		}
	}
	return dst
}
