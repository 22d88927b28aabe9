package hbone

import (
	"errors"
	"fmt"
)

// ErrCode is an HTTP/2 error code (RFC 9113 section 7). The HTTP/3 carrier maps
// it to the code of the same meaning (RFC 9114 section 8.1).
type ErrCode uint32

// The codes that tunnels use.
const (
	CodeNo            ErrCode = 0x0
	CodeProtocol      ErrCode = 0x1
	CodeInternal      ErrCode = 0x2
	CodeFlowControl   ErrCode = 0x3
	CodeStreamClosed  ErrCode = 0x5
	CodeFrameSize     ErrCode = 0x6
	CodeRefusedStream ErrCode = 0x7
	CodeCancel        ErrCode = 0x8
	CodeCompression   ErrCode = 0x9
	CodeConnect       ErrCode = 0xa
	CodeEnhanceCalm   ErrCode = 0xb
	CodeInadequate    ErrCode = 0xc
)

// ErrDraining is returned by Open on a tunnel that takes no new streams.
var ErrDraining = errors.New("tunnel is draining")

// ErrTooManyStreams is returned by Open on a tunnel whose peer allows no further stream now.
var ErrTooManyStreams = errors.New("tunnel has no free stream")

// StatusError is returned by Open when the peer answered with another status than 200.
type StatusError struct {
	Status int
}

func (e *StatusError) Error() string { return fmt.Sprintf("http status: %d", e.Status) }

// StreamError says that one stream ended out of order; its tunnel goes on.
type StreamError struct {
	Code ErrCode
	// Remote tells that the peer reset the stream, not we.
	Remote bool
}

func (e *StreamError) Error() string {
	who := "locally"
	if e.Remote {
		who = "by peer"
	}
	return fmt.Sprintf("stream reset %s (code %#x)", who, uint32(e.Code))
}

// TunnelError says that the whole connection ended and why.
type TunnelError struct {
	Code ErrCode
	// Remote tells that the peer ended it.
	Remote bool
	// Cause is what happened; never nil.
	Cause error
}

func (e *TunnelError) Error() string { return fmt.Sprintf("tunnel ended: %v", e.Cause) }

// Unwrap returns the cause.
func (e *TunnelError) Unwrap() error { return e.Cause }

// goAwayError is the reason that a peer gave in GOAWAY.
type goAwayError struct {
	code ErrCode
	text string
}

func (e *goAwayError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("peer ended the connection (code %#x)", uint32(e.code))
	}
	return fmt.Sprintf("peer ended the connection (code %#x): %.200q", uint32(e.code), e.text)
}
