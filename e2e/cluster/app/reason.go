package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// reason names why a request failed, in few and stable words, so that equal
// failures count together and tests can tell them apart.
func reason(err error) string {
	step := ""
	var op *net.OpError
	if errors.As(err, &op) {
		step = op.Op + ": "
	}
	var dns *net.DNSError
	var status statusError
	switch {
	case errors.As(err, &status):
		return fmt.Sprintf("status %d", int(status))
	case errors.As(err, &dns) && dns.IsNotFound:
		return "dns: no such host"
	case errors.As(err, &dns):
		return "dns: " + dns.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return step + "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return step + "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return step + "unreachable"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return step + "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return step + "closed early"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return step + text
}

// statusError is an HTTP answer that is not 200.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("status %d", int(s)) }
