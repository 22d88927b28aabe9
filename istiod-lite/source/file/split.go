package file

import (
	"bytes"
	"fmt"
)

// document is one YAML document or JSON value of a file.
type document struct {
	line int // of its first line, from 1
	text []byte
}

// split cuts a file at lines that start with "---", as kubectl does, and at
// those with "...", which end a document too. YAML allows neither at the start
// of a line inside a scalar.
func split(content []byte) ([]document, error) {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if i := bytes.IndexByte(content, 0); i >= 0 {
		return nil, fmt.Errorf("byte %d is zero: not a text file", i)
	}
	var (
		docs  []document
		line  = 1
		start = 0
		first = 1
	)
	add := func(end int) {
		if text := content[start:end]; !blank(text) {
			docs = append(docs, document{line: first, text: text})
		}
	}
	for pos := 0; pos < len(content); {
		end := bytes.IndexByte(content[pos:], '\n')
		next := pos + end + 1
		if end < 0 {
			next = len(content)
		}
		if separator(content[pos:next]) {
			add(pos)
			start, first = next, line+1
			// "--- {a: b}" carries content on the separator's own line.
			if rest := bytes.TrimSpace(content[pos+3 : next]); len(rest) > 0 && rest[0] != '#' {
				start, first = pos+3, line
			}
		}
		pos = next
		line++
	}
	add(len(content))
	return docs, nil
}

// separator reports whether a line is "---" or "..." alone or followed by white
// space.
func separator(line []byte) bool {
	return (bytes.HasPrefix(line, []byte("---")) || bytes.HasPrefix(line, []byte("..."))) &&
		(len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\n' || line[3] == '\r')
}

// blank reports whether text holds nothing but comments and white space.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}
