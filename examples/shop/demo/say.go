package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// speaker writes the demo's story: in colour on a terminal, unless NO_COLOR
// (no-color.org) or a dumb terminal asks for none.
type speaker struct {
	w      io.Writer
	colour bool
	step   int
}

func newSpeaker(f *os.File) *speaker {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &speaker{w: f, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s *speaker) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title begins a step.
func (s *speaker) title(text string) {
	s.step++
	fmt.Fprintf(s.w, "\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", s.step, text)))
}

// text explains.
func (s *speaker) text(format string, args ...any) {
	fmt.Fprintf(s.w, "   %s\n", fmt.Sprintf(format, args...))
}

// command shows what is run.
func (s *speaker) command(line string) {
	fmt.Fprintf(s.w, "   %s\n", s.paint(cyan, "$ "+line))
}

// output shows what a command printed.
func (s *speaker) output(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			fmt.Fprintf(s.w, "     %s\n", s.paint(dim, line))
		}
	}
}

// good and bad say what a step showed.
func (s *speaker) good(format string, args ...any) {
	fmt.Fprintf(s.w, "   %s %s\n", s.paint(green, "ok"), fmt.Sprintf(format, args...))
}

func (s *speaker) bad(text string) {
	fmt.Fprintf(s.w, "   %s %s\n", s.paint(red, "NOT AS IT SHOULD BE"), text)
}

// mark highlights a part of a line.
func (s *speaker) mark(line, part string) string {
	return strings.ReplaceAll(line, part, s.paint(yellow, part))
}
