package message

import (
	"errors"
	"fmt"
)

// ProtocolError says that the peer's message breaks the protocol.
type ProtocolError struct {
	// Status is what a server answers: 400, 408, 413, 414, 417, 421, 431, 501 or 505.
	Status int
	// Reason says what is wrong, for logs; it does not quote what the peer sent.
	Reason string
}

func (e *ProtocolError) Error() string { return "protocol error: " + e.Reason }

// Malformed returns the error of a message that cannot be read in one way only.
func Malformed(format string, args ...any) *ProtocolError {
	return &ProtocolError{Status: 400, Reason: fmt.Sprintf(format, args...)}
}

// ResetError says that one exchange was broken off, by an HTTP/2 error code (RFC
// 9113, 7); HTTP/1.1 breaks its connection off and has code 0.
type ResetError struct {
	Code uint32
	// Remote tells that the peer did it.
	Remote bool
}

func (e *ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("reset by the peer (code %d)", e.Code)
	}
	return fmt.Sprintf("reset (code %d)", e.Code)
}

// UnsentError wraps the failure of a request that no application has seen: it may be
// sent again, whatever its method.
type UnsentError struct{ Err error }

func (e *UnsentError) Error() string { return e.Err.Error() }
func (e *UnsentError) Unwrap() error { return e.Err }

// Unsent reports whether the request certainly reached no application.
func Unsent(err error) bool {
	var u *UnsentError
	return errors.As(err, &u)
}
