package forward

import (
	"errors"
	"io"
	"sync"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// buffers hold what passes from one side to the other.
var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// sink takes content: a response to the client or a request to the endpoint.
type sink interface {
	Write(p []byte) (int, error)
	Flush() error
}

// readError is a failure of the side that content came from.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// pump carries content until its end and returns how much it was. It flushes when
// there is nothing more to read at the moment, so that who waits for the next event of
// a stream gets it; the last of it is left for who ends the message. An error of the
// body is a readError. What passes is counted.
func pump(to sink, body message.Body, counted *messages) (int64, error) {
	buf := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			total += int64(n)
			counted.count(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return total, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, readError{err}
		case n < len(buf):
			if err := to.Flush(); err != nil {
				return total, err
			}
		}
	}
}
