package http2

import (
	"errors"
	"fmt"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// The error codes (RFC 9113, 7).
const (
	codeNo            = 0x0
	codeProtocol      = 0x1
	codeInternal      = 0x2
	codeFlowControl   = 0x3
	codeStreamClosed  = 0x5
	codeFrameSize     = 0x6
	codeRefusedStream = 0x7
	codeCancel        = 0x8
	codeCompression   = 0x9
	codeEnhanceCalm   = 0xb
)

// ErrDraining is wrapped by what Open returns on a connection that takes no more
// requests.
var ErrDraining = errors.New("connection takes no more requests")

// ErrTooManyStreams is wrapped by what Open returns on a connection whose server
// allows no further request now.
var ErrTooManyStreams = errors.New("connection has no room for another request")

// ErrNoUpgrade is wrapped by what Open returns for a request with a Protocol, when
// the server did not offer extended CONNECT (RFC 8441).
var ErrNoUpgrade = errors.New("server takes no extended CONNECT")

// Errors of the caller of an exchange.
var (
	errResponded    = errors.New("request is answered already")
	errNotResponded = errors.New("request is not answered yet")
	errEnded        = errors.New("content has ended")
	errTooLong      = errors.New("content is longer than its head says")
	errTooShort     = errors.New("content is shorter than its head says")
	errBadField     = errors.New("name or value of a field is not valid")
	errHeadTooLarge = errors.New("head is too large")
	errNoSwitch     = errors.New("request asked for no change of protocol")
	errStalled      = errors.New("client takes nothing of the response")
	errAccepts      = errors.New("the response would accept a CONNECT or an upgrade that was not accepted")
	errDone         = errors.New("exchange is over")
)

// errCancelled is what an exchange ends with whose user gave it up.
var errCancelled = &message.ResetError{Code: codeCancel}

// ConnError says that the whole connection ended, and why.
type ConnError struct {
	// Code is that of GOAWAY, 0 when there was none.
	Code uint32
	// Remote tells that the peer ended it.
	Remote bool
	// Cause is what happened; never nil.
	Cause error
}

func (e *ConnError) Error() string { return fmt.Sprintf("HTTP/2 connection ended: %v", e.Cause) }

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Cause }

// fault makes the error of a connection that ends because of what the peer did.
func fault(code uint32, format string, args ...any) error {
	return &ConnError{Code: code, Cause: fmt.Errorf(format, args...)}
}

// streamFault is an error of the peer that ends one stream.
type streamFault struct {
	id    uint32
	code  uint32
	cause error // for who uses the stream
}

func (f *streamFault) Error() string { return fmt.Sprintf("stream %d: %v", f.id, f.cause) }

// faulty makes a streamFault of what is wrong with a message.
func faulty(id, code uint32, reason string) error {
	return &streamFault{id, code, message.Malformed("%s", reason)}
}
