package logformat

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Values are those of one request.
type Values interface {
	// Append writes the value of a command, or returns false when there is none.
	Append(dst []byte, c *Command) ([]byte, bool)
	// Start is when the request came.
	Start() time.Time
}

// Format is a format that was read.
type Format struct {
	parts []part
	text  string
}

// part is a text or a command.
type part struct {
	text    string
	command *Command
}

// Default is the text format of Istio's proxies.
const Default = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	"%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"

// Parse reads a format. The error names the command that is wrong.
func Parse(text string) (*Format, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("format has %d bytes, more than %d", len(text), MaxBytes)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("format is not UTF-8")
	}
	f := &Format{text: text}
	literal := func(s string) {
		if s == "" {
			return
		}
		if n := len(f.parts); n > 0 && f.parts[n-1].command == nil {
			f.parts[n-1].text += s
			return
		}
		f.parts = append(f.parts, part{text: s})
	}
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "%")
		literal(before)
		if !found {
			break
		}
		if strings.HasPrefix(after, "%") {
			literal("%")
			rest = after[1:]
			continue
		}
		c, left, err := command(after)
		if err != nil {
			return nil, err
		}
		f.parts = append(f.parts, part{command: &c})
		if len(f.parts) > maxParts {
			return nil, fmt.Errorf("format has more than %d parts", maxParts)
		}
		rest = left
	}
	return f, nil
}

// command reads NAME[(arguments)][:length]% and returns what follows.
func command(s string) (Command, string, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' })
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		return Command{}, "", fmt.Errorf("a percent sign before %q begins no command; %%%% writes one", clip(s))
	}
	name, rest := s[:end], s[end:]
	args, hasArgs := "", false
	if strings.HasPrefix(rest, "(") {
		closing := strings.IndexByte(rest, ')')
		if closing < 0 {
			return Command{}, "", fmt.Errorf("command %%%s has no closing parenthesis", name)
		}
		args, hasArgs, rest = rest[1:closing], true, rest[closing+1:]
	}
	tail, left, found := strings.Cut(rest, "%")
	if !found || tail != "" && (!strings.HasPrefix(tail, ":") || strings.ContainsAny(tail, " \n")) {
		return Command{}, "", fmt.Errorf("command %%%s does not end in a percent sign", name)
	}
	c, err := parseCommand(name, args, hasArgs, strings.TrimPrefix(tail, ":"))
	return c, left, err
}

func clip(s string) string {
	if len(s) > 20 {
		return strings.ToValidUTF8(s[:20], "") + "…"
	}
	return s
}

// String returns the text that was read.
func (f *Format) String() string { return f.text }

// Single returns the command of a format that is nothing else.
func (f *Format) Single() (*Command, bool) {
	if len(f.parts) == 1 && f.parts[0].command != nil {
		return f.parts[0].command, true
	}
	return nil, false
}

// Append writes one line. What has no value is "-". Controls in values, which could
// forge a line, are written as a question mark.
func (f *Format) Append(dst []byte, v Values) []byte {
	for i := range f.parts {
		p := &f.parts[i]
		if p.command == nil {
			dst = append(dst, p.text...)
			continue
		}
		var ok bool
		if dst, ok = p.command.Append(dst, v); !ok {
			dst = append(dst, '-')
		}
	}
	return dst
}

// Append writes the value of the command, or returns false when there is none.
func (c *Command) Append(dst []byte, v Values) ([]byte, bool) {
	at := len(dst)
	if c.Op == StartTime {
		dst = c.clock.append(dst, v.Start())
	} else {
		var ok bool
		if dst, ok = v.Append(dst, c); !ok {
			return dst[:at], false
		}
	}
	if len(dst)-at > c.max {
		dst = dst[:at+c.max]
	}
	for i := at; i < len(dst); i++ {
		if dst[i] < ' ' || dst[i] == 0x7f {
			dst[i] = '?'
		}
	}
	return dst, len(dst) > at
}
