package ratelimit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// What of Redis's protocol (RESP2) the script's calls need: commands are lists of
// strings, answers integers, strings, errors and lists of them.

const (
	// maxReplyBytes bounds one string of an answer, maxReplyValues one list and
	// maxReplyDepth their nesting: the script answers with some integers, and errors of
	// Redis are short.
	maxReplyBytes  = 4 << 10
	maxReplyValues = 1 << 10
	maxReplyDepth  = 2
	// maxLineBytes bounds a line that tells a type and a length.
	maxLineBytes = 4 << 10
)

// reply is an answer of Redis.
type reply struct {
	text string
	n    int64
	list []reply
	err  bool // text is that of an error
	null bool
}

// redisError is what Redis answered instead of doing what it was asked.
type redisError string

func (e redisError) Error() string { return "redis: " + string(e) }

// appendCommand appends a command.
func appendCommand(b []byte, args ...string) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(args)), 10)
	b = append(b, "\r\n"...)
	for _, a := range args {
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(len(a)), 10)
		b = append(b, "\r\n"...)
		b = append(b, a...)
		b = append(b, "\r\n"...)
	}
	return b
}

// readReply reads one answer. An error is one of the connection, which is of no more
// use; an answer that is an error is none.
func readReply(r *bufio.Reader) (reply, error) { return readNested(r, 0) }

func readNested(r *bufio.Reader, depth int) (reply, error) {
	line, err := readLine(r)
	if err != nil {
		return reply{}, err
	}
	if line == "" {
		return reply{}, errors.New("redis: an empty line")
	}
	rest := line[1:]
	switch line[0] {
	case '+':
		return reply{text: rest}, nil
	case '-':
		return reply{text: rest, err: true}, nil
	case ':':
		n, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			return reply{}, fmt.Errorf("redis: %q is no integer", rest)
		}
		return reply{n: n}, nil
	case '$':
		n, err := length(rest, maxReplyBytes)
		if err != nil || n < 0 {
			return reply{null: n < 0}, err
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return reply{}, err
		}
		if string(body[n:]) != "\r\n" {
			return reply{}, errors.New("redis: a string does not end where it says")
		}
		return reply{text: string(body[:n])}, nil
	case '*':
		n, err := length(rest, maxReplyValues)
		if err != nil || n < 0 {
			return reply{null: n < 0}, err
		}
		if depth == maxReplyDepth {
			return reply{}, errors.New("redis: lists nested too deep")
		}
		var out reply
		for range n {
			v, err := readNested(r, depth+1)
			if err != nil {
				return reply{}, err
			}
			out.list = append(out.list, v)
		}
		return out, nil
	}
	return reply{}, fmt.Errorf("redis: an answer of the type %q", line[0])
}

func length(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < -1:
		return 0, fmt.Errorf("redis: %q is no length", text)
	case n > most:
		return 0, fmt.Errorf("redis: an answer of %d, of at most %d", n, most)
	}
	return n, nil
}

// readLine reads up to CRLF.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLineBytes:
			return "", errors.New("redis: a line that is too long")
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return "", err
		case len(line) < 2 || line[len(line)-2] != '\r':
			return "", errors.New("redis: a line that does not end in CRLF")
		}
		return string(line[:len(line)-2]), nil
	}
}
